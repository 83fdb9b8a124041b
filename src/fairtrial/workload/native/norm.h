// Batch norm with its activation, over a matrix of pixels by channels.
//
// An "affine" is four rows of a number a channel: mean, scale, shift, inverse deviation. The layer computes
// cut((y - mean) * scale + shift); subtracting first keeps the digits of channels with a large mean.
#pragma once

#include "vectors.h"

namespace fairtrial {

// Pixels that a pass reads together: a channel's coefficients are loaded once for all of them.
constexpr Index kRowsTogether = 8;
// Pixels whose sums are kept in T before they go into doubles.
constexpr Index kRowsInT = 128;

template <class T>
struct Affine {
  const T *mean, *scale, *shift, *inverse_deviation;

  Affine(const T* rows, Index channels)
      : mean(rows), scale(rows + channels), shift(rows + 2 * channels), inverse_deviation(rows + 3 * channels) {}

  template <class S>
  typename S::Vector centred(typename S::Vector value, Index channel, S) const {
    return value - S::load(mean + channel);
  }
  template <class S>
  typename S::Vector scaled(typename S::Vector centred, Index channel, S) const {
    return centred * S::load(scale + channel) + S::load(shift + channel);
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

  // Adds what body(Slab, place, channel, first&, second&) adds for each pixel and slab.
  template <class Body>
  void add(Index rows, Body body) {
    for (Index begin = 0; begin < rows; begin += kRowsInT) {
      const Index end = std::min(begin + kRowsInT, rows);
      for (Index top = begin; top < end; top += kRowsTogether) add_few(top, std::min(top + kRowsTogether, end), body);
      for (Index c = 0; c < channels; ++c) {
        first[c] += few_first[c];
        second[c] += few_second[c];
        few_first[c] = few_second[c] = T(0);
      }
    }
  }

 private:
  template <class Body>
  void add_few(Index top, Index end, Body& body) {
    each_slab<T>(channels, [&](auto slab, Index c) {
      using S = decltype(slab);
      auto one = S::load(&few_first[c]), two = S::load(&few_second[c]);
      for (Index row = top; row < end; ++row) body(slab, row * channels + c, c, one, two);
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
// pixels, which keeps the digits that a sum of plain squares would lose (Chan, Golub & LeVeque 1983, section 3).
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
    sums.add(count, [=](auto slab, Index place, Index c, auto& first, auto& second) {
      using S = decltype(slab);
      const auto deviation = S::load(values + place) - S::load(from + c);
      first += deviation;
      second += deviation * deviation;
    });
  }

  // Merges the moments of parts into `mean` and `squares`, by the updating formula of the same paper (eq. 2.1).
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

 private:
  void set_origin(const T* values, Index count) {
    for (Index row = 0; row < count; ++row)
      for (Index c = 0; c < sums.channels; ++c) origin[c] += values[row * sums.channels + c] / T(count);
  }
};

// Adds to `sums`, a channel: the gradient behind the activation, and its product with the centred input.
template <class T>
void add_gradients(Sums<T>& sums, const T* gradient, const T* input, Affine<T> affine, Cut<T> cut, Index rows) {
  sums.add(rows, [=](auto slab, Index place, Index c, auto& first, auto& second) {
    using S = decltype(slab);
    const auto centred = affine.centred(S::load(input + place), c, slab);
    const auto inner = cut.gradient(affine.scaled(centred, c, slab), S::load(gradient + place));
    first += inner;
    second += inner * centred;
  });
}

// The gradient with respect to batch norm's input, for one slab. `coefficients` are two rows: what the mean and what the
// variance of the batch take off; both zero where the statistics did not come from the batch.
template <class T, class S>
inline typename S::Vector input_gradient(S slab, const T* gradient, const T* input, Affine<T> affine,
                                         const T* coefficients, Index channels, Cut<T> cut, Index c) {
  const auto centred = affine.centred(S::load(input), c, slab);
  const auto inner = cut.gradient(affine.scaled(centred, c, slab), S::load(gradient));
  const auto taken = S::load(coefficients + c) + centred * S::load(coefficients + channels + c);
  return (inner - taken) * S::load(affine.scale + c);
}

// Calls body(Slab, place, channel) for every pixel and slab, a few pixels at a time.
template <class T, class Body>
void each_place(Index rows, Index channels, int threads, Body body) {
  each_part(rows, threads, [&](int, Index begin, Index end) {
    for (Index top = begin; top < end; top += kRowsTogether) {
      const Index bottom = std::min(top + kRowsTogether, end);
      each_slab<T>(channels, [&](auto slab, Index c) {
        for (Index row = top; row < bottom; ++row) body(slab, row * channels + c, c);
      });
    }
  });
}

}  // namespace fairtrial
