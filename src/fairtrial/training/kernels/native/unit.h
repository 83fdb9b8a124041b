// A unit of a chain: a convolution and the batch norm behind it.
#pragma once

#include "depthwise.h"
#include "product.h"

namespace fairtrial {

enum Kind : Index { kNone, kPointwise, kDepthwise, kWindows };

// A convolution and the batch norm behind it; one of the two may be missing. Python fills this in, field by field.
template <class T>
struct Unit {
  Index kind;
  Shape shape;     // of a norm alone: its input's, with the same output
  Index outputs;   // channels
  Index size;      // of the kernel of kWindows
  Index from_batch, activation;
  double eps, momentum, correction;
  // kPointwise (outputs, channels), kDepthwise (channels, 9), kWindows (outputs, y, x, channels)
  const T *weight, *bias;
  const T *norm_weight, *norm_bias;  // both null without a norm
  T *running_mean, *running_var;
  Index* batches_tracked;  // or null
  T *raw, *rows;           // what the convolution makes (pixels, outputs), and the norm's rows; kept for the way back
  T *weight_gradient, *bias_gradient, *norm_weight_gradient, *norm_bias_gradient;  // null where not asked for

  Index pixels() const { return shape.images * shape.out_pixels(); }
  Index in_pixels() const { return shape.images * shape.in_pixels(); }
  // Numbers that a product reads for each pixel.
  Index depth() const { return kind == kWindows ? size * size * shape.channels : shape.channels; }
  Norm<T> norm(bool cut_already = false) const {
    return Norm<T>(norm_weight ? rows : nullptr, outputs, cut_already ? 0 : int(activation));
  }
};

// A map as the next unit reads it: with a norm and an activation still to come, or finished.
template <class T>
struct Read {
  const T* raw;
  Norm<T> norm;

  bool finished() const { return !norm.rows; }
};

template <class T>
void norm_forward(const T* input, const Norm<T>& norm, Index rows, T* output, const Threads& threads) {
  each_place(rows, norm.channels, output, threads, [&](auto slab, Index c) {
    using S = decltype(slab);
    return [input, finish = SlabNorm<T, S>(norm, c)](Index place) { return finish(S::load(input + place)); };
  });
}

template <class T>
void norm_input_gradient(const T* gradient, const T* input, const Norm<T>& norm, const T* coefficients, Index rows,
                         T* output, const Threads& threads) {
  each_place(rows, norm.channels, output, threads, [&](auto slab, Index c) {
    using S = decltype(slab);
    return [=, back = SlabNormBack<T, S>(norm, coefficients, c)](Index place) {
      return back(S::load(input + place), S::load(gradient + place));
    };
  });
}

// Turns a mean and a variance into a norm's rows.
template <class T>
void set_rows(const Unit<T>& unit, const double* mean, const double* variance) {
  const Index channels = unit.outputs;
  T* __restrict norm = unit.rows;
  for (Index c = 0; c < channels; ++c) {
    const double inverse_deviation = 1 / std::sqrt(variance[c] + unit.eps);
    const double scale = double(unit.norm_weight[c]) * inverse_deviation;
    norm[c] = T(mean[c]);
    norm[channels + c] = T(scale);
    // What T cannot hold of the mean goes into the shift.
    norm[2 * channels + c] = T(double(unit.norm_bias[c]) + (double(T(mean[c])) - mean[c]) * scale);
    norm[3 * channels + c] = T(inverse_deviation);
  }
}

// Makes a norm's rows from a batch's moments and moves its running statistics, or from these statistics.
template <class T>
void settle_norm(const Unit<T>& unit, double* moments) {
  if (!unit.norm_weight) return;
  const Index channels = unit.outputs;
  if (!unit.from_batch) {
    const std::vector<double> mean(unit.running_mean, unit.running_mean + channels);
    const std::vector<double> variance(unit.running_var, unit.running_var + channels);
    return set_rows(unit, mean.data(), variance.data());
  }
  double* variance = moments + channels;
  for (Index c = 0; c < channels; ++c) variance[c] /= double(unit.pixels());
  set_rows(unit, moments, variance);
  for (Index c = 0; c < channels; ++c) {
    const double old_mean = double(unit.running_mean[c]), old_variance = double(unit.running_var[c]);
    unit.running_mean[c] = T((1 - unit.momentum) * old_mean + unit.momentum * moments[c]);
    unit.running_var[c] = T((1 - unit.momentum) * old_variance + unit.momentum * variance[c] * unit.correction);
  }
  if (unit.batches_tracked) ++*unit.batches_tracked;
}

// Turns a norm's sums into the gradients of its weight and bias, and into what `SlabNormBack` takes off.
template <class T>
void set_coefficients(const Unit<T>& unit, const double* sums, T* __restrict coefficients) {
  const Index channels = unit.outputs;
  const double share = unit.from_batch ? 1 / double(unit.pixels()) : 0;
  for (Index c = 0; c < channels; ++c) {
    const double inverse_deviation = double(unit.rows[3 * channels + c]);
    const double product = sums[channels + c] * inverse_deviation;
    if (unit.norm_weight_gradient) unit.norm_weight_gradient[c] = T(product);
    if (unit.norm_bias_gradient) unit.norm_bias_gradient[c] = T(sums[c]);
    coefficients[c] = T(sums[c] * share);
    coefficients[channels + c] = T(product * inverse_deviation * share);
  }
}

}  // namespace fairtrial
