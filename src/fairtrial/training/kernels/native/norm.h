// Batch norm with its activation, over a matrix of pixels by channels.
//
// A norm is four rows of a number a channel: mean, scale, shift, inverse deviation. The layer computes
// cut((y - mean) * scale + shift); subtracting first keeps the digits of channels with a large mean.
#pragma once

#include "vectors.h"

namespace fairtrial {

// Pixels that a pass reads together: a channel's coefficients are loaded once for all of them.
constexpr Index kRowsTogether = 8;
// Pixels whose sums are kept in T before they go into doubles.
constexpr Index kRowsInT = 128;

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

// Two sums a channel over pixels: in T for a few pixels, in double for all.
template <class T>
struct Sums {
  Index channels;
  std::vector<T> few_first, few_second;
  std::vector<double> first, second;

  explicit Sums(Index channels)
      : channels(channels), few_first(channels), few_second(channels), first(channels), second(channels) {}

  // Adds what prepare(Slab, channel)(place, first&, second&) adds, for each pixel and slab.
  template <class Prepare>
  void add(Index rows, Prepare prepare) {
    for (Index begin = 0; begin < rows; begin += kRowsInT) {
      const Index end = std::min(begin + kRowsInT, rows);
      for (Index top = begin; top < end; top += kRowsTogether)
        add_few(top, std::min(top + kRowsTogether, end), prepare);
      flush();
    }
  }

  // Moves what was summed in T to the doubles.
  void flush() {
    for (Index c = 0; c < channels; ++c) {
      first[c] += few_first[c];
      second[c] += few_second[c];
      few_first[c] = few_second[c] = T(0);
    }
  }

 private:
  template <class Prepare>
  void add_few(Index top, Index end, Prepare& prepare) {
    each_slab<T>(channels, [&](auto slab, Index c) {
      using S = decltype(slab);
      const auto add_one = prepare(slab, c);
      auto one = S::load(&few_first[c]), two = S::load(&few_second[c]);
      for (Index row = top; row < end; ++row) add_one(row * channels + c, one, two);
      S::store(&few_first[c], one);
      S::store(&few_second[c], two);
    });
  }
};

// The sums of all parts, in order: a row of the first, a row of the second.
template <class T>
void sum_parts(const std::vector<Sums<T>>& parts, Index channels, double* rows) {
  std::fill(rows, rows + 2 * channels, 0.0);
  for (const Sums<T>& part : parts) {
    for (Index c = 0; c < channels; ++c) {
      rows[c] += part.first[c];
      rows[channels + c] += part.second[c];
    }
  }
}

// Mean and sum of squared deviations of each channel, in one pass. Deviations are taken from the mean of the first few
// pixels, which keeps the digits that a sum of plain squares would lose (Chan, Golub & LeVeque 1983, The American
// Statistician 37).
template <class T>
struct Moments {
  Sums<T> sums;
  std::vector<T> origin;
  Index rows = 0;

  explicit Moments(Index channels) : sums(channels), origin(channels) {}

  void add(const T* values, Index count) {
    if (rows == 0) set_origin(values, std::min<Index>(count, 16));
    rows += count;
    const T* from = origin.data();
    sums.add(count, [=](auto slab, Index c) {
      using S = decltype(slab);
      return [values, middle = S::load(from + c)](Index place, auto& first, auto& second) {
        const auto deviation = S::load(values + place) - middle;
        first += deviation;
        second += deviation * deviation;
      };
    });
  }

  // Merges the moments of parts into `mean` and `squares`, by the updating formula of the same paper.
  static void merge(const std::vector<Moments>& parts, Index channels, double* mean, double* squares) {
    std::fill(mean, mean + channels, 0.0);
    std::fill(squares, squares + channels, 0.0);
    double before = 0;
    for (const Moments& part : parts) {
      if (part.rows == 0) continue;
      const double count = double(part.rows), after = before + count;
      for (Index c = 0; c < channels; ++c) {
        const double offset = part.sums.first[c] / count, step = double(part.origin[c]) + offset - mean[c];
        mean[c] += step * count / after;
        squares[c] += part.sums.second[c] - offset * part.sums.first[c] + step * step * before * count / after;
      }
      before = after;
    }
  }

  // Sets what deviations are taken from.
  void set_origin(const T* values, Index count) {
    const T share = T(1) / T(count);
    for (Index row = 0; row < count; ++row)
      for (Index c = 0; c < sums.channels; ++c) origin[c] += values[row * sums.channels + c] * share;
  }
};

// Adds to `sums`, a channel: the gradient behind the activation, and its product with the centered input.
template <class T>
void add_gradients(Sums<T>& sums, const T* gradient, const T* input, const Norm<T>& norm, Index rows) {
  sums.add(rows, [&](auto slab, Index c) {
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
void each_place(Index rows, Index channels, T* output, int threads, Prepare prepare) {
  each_part(rows, threads, [&](int, Index begin, Index end) {
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
