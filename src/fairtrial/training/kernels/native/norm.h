// Batch norm with its activation, over a matrix of pixels by channels.
//
// A norm is four rows of a number a channel: mean, scale, shift, inverse deviation. The layer computes
// cut((y - mean) * scale + shift); subtracting first keeps the digits of channels with a large mean.
#pragma once

#include "sums.h"

namespace fairtrial {

// A norm and its activation, or the activation alone where `rows` is null.
template <class T>
struct Norm {
  const T* rows;
  Index channels;
  Cut<T> cut;

  Norm(const T* rows, Index channels, int activation) : rows(rows), channels(channels), cut(activation) {}

  const T* row(int number) const { return rows + number * channels; }
};

// The same for one slab, its coefficients in registers. Without a norm: mean 0, scale 1, shift 0.
template <class T, class S>
struct SlabNorm {
  using V = typename S::Vector;
  V mean, scale, shift;
  Cut<T> cut;

  SlabNorm(const Norm<T>& norm, Index c) : mean(V{}), scale(S::all(1)), shift(V{}), cut(norm.cut) {
    if (!norm.rows) return;
    mean = S::load(norm.row(0) + c);
    scale = S::load(norm.row(1) + c);
    shift = S::load(norm.row(2) + c);
  }
  V before_cut(V value) const { return (value - mean) * scale + shift; }
  V operator()(V value) const { return cut(before_cut(value)); }
  // From the gradient behind the activation to the one before it.
  V inner(V value, V gradient) const { return cut.gradient(before_cut(value), gradient); }
};

// The way back through a norm for one slab. `coefficients` are two rows: what the mean and what the variance of the
// batch take off; both zero where the statistics did not come from the batch.
template <class T, class S>
struct SlabNormBack {
  using V = typename S::Vector;
  SlabNorm<T, S> norm;
  V of_mean, of_variance;
  bool present;

  SlabNormBack(const Norm<T>& norm, const T* coefficients, Index c)
      : norm(norm, c), of_mean(V{}), of_variance(V{}), present(norm.rows) {
    if (!present) return;
    of_mean = S::load(coefficients + c);
    of_variance = S::load(coefficients + norm.channels + c);
  }
  V operator()(V value, V gradient) const {
    return (norm.inner(value, gradient) - of_mean - (value - norm.mean) * of_variance) * norm.scale;
  }
};

// The two sums of batch norm's own backward pass: of the gradient behind the activation, and of its product with the
// centered input. The first pixel begins a group, of this number.
template <class T>
void add_gradients(GroupSums<T>& sums, Index group, const T* gradient, const T* input, const Norm<T>& norm, Index rows,
                   const Threads& threads) {
  sums.add(group, rows, threads, [&](auto slab, Index c) {
    using S = decltype(slab);
    return [=, back = SlabNorm<T, S>(norm, c)](Index place, auto& first, auto& second) {
      const auto value = S::load(input + place), inner = back.inner(value, S::load(gradient + place));
      first += inner;
      second += inner * (value - back.mean);
    };
  });
}

// For every pixel and slab, output = prepare(Slab, channel)(place); a few pixels at a time, so that what `prepare`
// loads serves all of them.
template <class T, class Prepare>
void each_place(Index rows, Index channels, T* output, const Threads& threads, Prepare prepare) {
  const Index least = std::max<Index>(1, kLeastNumbers / channels);
  threads.each_range(rows, least, kRowsTogether, [&](Index begin, Index end) {
    for (Index top = begin; top < end; top += kRowsTogether) {
      const Index bottom = std::min(top + kRowsTogether, end);
      each_slab<T>(channels, [&](auto slab, Index c) {
        const auto compute = prepare(slab, c);
        for (Index row = top; row < bottom; ++row)
          decltype(slab)::store(output + row * channels + c, compute(row * channels + c));
      });
    }
  });
}

}  // namespace fairtrial
