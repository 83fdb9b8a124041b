// Matrix products over rows of pixels, by the BLAS that torch brings along or, without one, by a plain kernel of ours.
#pragma once

#include "vectors.h"

namespace fairtrial {

// A row-major matrix, or its transpose.
template <class T>
struct Matrix {
  const T* data;
  Index across;  // numbers from one row in memory to the next
  bool transposed = false;

  const T* at(Index row, Index column) const {
    return data + (transposed ? column * across + row : row * across + column);
  }
};

// The Fortran interface of BLAS's gemm.
template <class T>
using Gemm = void (*)(const char*, const char*, const int*, const int*, const int*, const T*, const T*, const int*,
                      const T*, const int*, const T*, T*, const int*);

// output = left * right, or output += left * right; a tile of a few rows by two slabs at a time.
template <class T>
void plain_product(Matrix<T> left, Matrix<T> right, Index rows, Index columns, Index depth, bool add, T* output) {
  constexpr int kRows = 4;
  std::vector<T> across(right.transposed ? depth * columns : 0);
  const T* from = right.data;
  if (right.transposed) {
    for (Index k = 0; k < depth; ++k)
      for (Index c = 0; c < columns; ++c) across[k * columns + c] = *right.at(k, c);
    from = across.data();
  }
  const Index step = right.transposed ? columns : right.across;
  for (Index top = 0; top < rows; top += kRows) {
    const Index here = std::min<Index>(kRows, rows - top);
    each_slab<T>(columns, [&](auto slab, Index c) {
      using S = decltype(slab);
      typename S::Vector sums[kRows] = {};
      for (Index k = 0; k < depth; ++k) {
        const auto factor = S::load(from + k * step + c);
        for (Index row = 0; row < here; ++row) sums[row] += *left.at(top + row, k) * factor;
      }
      for (Index row = 0; row < here; ++row) {
        T* to = output + (top + row) * columns + c;
        S::store(to, add ? S::load(to) + sums[row] : sums[row]);
      }
    });
  }
}

// What multiplies matrices; the output is dense and row-major.
template <class T>
struct Products {
  Gemm<T> gemm;  // or null

  void operator()(Matrix<T> left, Matrix<T> right, Index rows, Index columns, Index depth, bool add, T* output) const {
    if (!gemm) return plain_product(left, right, rows, columns, depth, add, output);
    // BLAS thinks in columns: what is ours by rows is the transpose to it, so the factors change places.
    const int m = int(columns), n = int(rows), k = int(depth), of_right = int(right.across), of_left = int(left.across);
    const T one = 1, factor = add ? T(1) : T(0);
    gemm(right.transposed ? "T" : "N", left.transposed ? "T" : "N", &m, &n, &k, &one, right.data, &of_right, left.data,
         &of_left, &factor, output, &m);
  }
};

}  // namespace fairtrial
