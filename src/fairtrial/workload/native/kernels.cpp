// The functions that Python calls. Compiled once for float and once for double: FAIRTRIAL_REAL says which.
//
// Arrays are dense and NHWC. `threads` is at least 1. A null pointer stands for what is absent. Activations are 0 for
// none, 1 for ReLU, 2 for ReLU6. A shape is nine numbers, in the order of `Shape`.

#include "depthwise.h"

namespace fairtrial {
namespace {

template <class T>
void batch_moments(const T* values, Index rows, Index channels, double* moments, int threads) {
  std::vector<Moments<T>> parts(threads, Moments<T>(channels));
  each_part(rows, threads, [&](int part, Index begin, Index end) {
    parts[part].add(values + begin * channels, end - begin);
  });
  Moments<T>::merge(parts, channels, moments, moments + channels);
}

// Turns a mean and a variance into a norm's rows.
template <class T>
void set_rows(Index channels, const double* mean, const double* variance, const T* weight, const T* bias, double eps,
              T* __restrict norm) {
  for (Index c = 0; c < channels; ++c) {
    const double inverse_deviation = 1 / std::sqrt(variance[c] + eps), scale = double(weight[c]) * inverse_deviation;
    norm[c] = T(mean[c]);
    norm[channels + c] = T(scale);
    // What T cannot hold of the mean goes into the shift.
    norm[2 * channels + c] = T(double(bias[c]) + (double(T(mean[c])) - mean[c]) * scale);
    norm[3 * channels + c] = T(inverse_deviation);
  }
}

// Moves running statistics towards a batch's. `correction` turns the biased variance into the one that they take.
template <class T>
void move_running(Index channels, const double* mean, const double* variance, double momentum, double correction,
                  T* __restrict running_mean, T* __restrict running_var) {
  for (Index c = 0; c < channels; ++c) {
    running_mean[c] = T((1 - momentum) * double(running_mean[c]) + momentum * mean[c]);
    running_var[c] = T((1 - momentum) * double(running_var[c]) + momentum * variance[c] * correction);
  }
}

// Turns a norm's sums into the gradients of its weight and bias, and into what `SlabNormBack` takes off.
template <class T>
void set_coefficients(const double* sums, Index rows, Index channels, const T* norm, bool from_batch,
                      T* __restrict weight_gradient, T* __restrict bias_gradient, T* __restrict coefficients) {
  const double share = from_batch ? 1 / double(rows) : 0;
  for (Index c = 0; c < channels; ++c) {
    const double inverse_deviation = double(norm[3 * channels + c]), product = sums[channels + c] * inverse_deviation;
    weight_gradient[c] = T(product);
    bias_gradient[c] = T(sums[c]);
    coefficients[c] = T(sums[c] * share);
    coefficients[channels + c] = T(product * inverse_deviation * share);
  }
}

template <class T>
void norm_forward(const T* input, const Norm<T>& norm, Index rows, T* output, int threads) {
  each_place(rows, norm.channels, output, threads, [&](auto slab, Index c) {
    using S = decltype(slab);
    return [input, finish = SlabNorm<T, S>(norm, c)](Index place) { return finish(S::load(input + place)); };
  });
}

template <class T>
void norm_sums(const T* gradient, const T* input, const Norm<T>& norm, Index rows, double* sums, int threads) {
  const Index channels = norm.channels;
  std::vector<Sums<T>> parts(threads, Sums<T>(channels));
  each_part(rows, threads, [&](int part, Index begin, Index end) {
    add_gradients(parts[part], gradient + begin * channels, input + begin * channels, norm, end - begin);
  });
  sum_parts(parts, channels, sums);
}

template <class T>
void norm_input_gradient(const T* gradient, const T* input, const Norm<T>& norm, const T* coefficients, Index rows,
                         T* output, int threads) {
  each_place(rows, norm.channels, output, threads, [&](auto slab, Index c) {
    using S = decltype(slab);
    return [=, back = SlabNormBack<T, S>(norm, coefficients, c)](Index place) {
      return back(S::load(input + place), S::load(gradient + place));
    };
  });
}

// The windows of a dense convolution as rows of a matrix: (images * out_height * out_width, size * size * channels).
template <class T>
void windows(const T* input, const Shape& s, Index size, T* rows, int threads) {
  const Index across = size * s.channels;
  each_part(s.images * s.out_height, threads, [&](int, Index begin, Index end) {
    for (Index line = begin; line < end; ++line) {
      const T* image = input + line / s.out_height * s.in_pixels() * s.channels;
      const Index up = line % s.out_height * s.stride - s.top;
      T* to = rows + line * s.out_width * size * across;
      for (Index j = 0; j < s.out_width; ++j) {
        const Index left = j * s.stride - s.left;
        const Index first = std::clamp<Index>(-left, 0, size), last = std::clamp<Index>(s.width - left, first, size);
        for (Index y = up; y < up + size; ++y, to += across) {
          const bool inside = y >= 0 && y < s.height;
          const Index begin_copy = (inside ? first : size) * s.channels, end_copy = (inside ? last : size) * s.channels;
          const T* from = image + (y * s.width + left) * s.channels;
          for (Index place = 0; place < across; ++place)
            to[place] = place >= begin_copy && place < end_copy ? from[place] : T(0);
        }
      }
    }
  });
}

}  // namespace
}  // namespace fairtrial

using fairtrial::Index;
using Real = FAIRTRIAL_REAL;
using Norm = fairtrial::Norm<Real>;

static fairtrial::Shape shape_of(const Index* numbers) {
  fairtrial::Shape shape;
  std::memcpy(&shape, numbers, sizeof shape);
  return shape;
}

extern "C" {

int vector_bytes() { return FAIRTRIAL_VECTOR_BYTES; }

// A batch norm's rows from a batch of `rows` pixels, whose moments may be given; moves its running statistics.
void norm_from_batch(const Real* values, double* moments, Index rows, Index channels, const Real* weight,
                     const Real* bias, double eps, double momentum, double correction, Real* running_mean,
                     Real* running_var, Index* batches_tracked, Real* norm, int threads) {
  std::vector<double> own;
  if (!moments) {
    own.resize(2 * channels);
    moments = own.data();
    fairtrial::batch_moments(values, rows, channels, moments, threads);
  }
  double* variance = moments + channels;
  for (Index c = 0; c < channels; ++c) variance[c] /= double(rows);
  fairtrial::set_rows(channels, moments, variance, weight, bias, eps, norm);
  fairtrial::move_running(channels, moments, variance, momentum, correction, running_mean, running_var);
  if (batches_tracked) ++*batches_tracked;
}

// A batch norm's rows from its running statistics.
void norm_from_running(Index channels, const Real* weight, const Real* bias, double eps, const Real* running_mean,
                       const Real* running_var, Real* norm) {
  const std::vector<double> mean(running_mean, running_mean + channels), variance(running_var, running_var + channels);
  fairtrial::set_rows(channels, mean.data(), variance.data(), weight, bias, eps, norm);
}

void norm_forward(const Real* input, const Real* rows, int activation, Index pixels, Index channels, Real* output,
                  int threads) {
  fairtrial::norm_forward(input, Norm(rows, channels, activation), pixels, output, threads);
}

// A batch norm's backward pass. The sums of `add_gradients` may be given. Without an `output` it ends with the
// coefficients, which are then for `depthwise_backward`.
void norm_backward(const Real* gradient, const Real* input, const Real* rows, int activation, const double* sums,
                   int from_batch, Index pixels, Index channels, Real* weight_gradient, Real* bias_gradient,
                   Real* coefficients, Real* output, int threads) {
  const Norm norm(rows, channels, activation);
  std::vector<double> own_sums;
  std::vector<Real> own_coefficients;
  if (!sums) {
    own_sums.resize(2 * channels);
    fairtrial::norm_sums(gradient, input, norm, pixels, own_sums.data(), threads);
    sums = own_sums.data();
  }
  if (!coefficients) {
    own_coefficients.resize(2 * channels);
    coefficients = own_coefficients.data();
  }
  fairtrial::set_coefficients(sums, pixels, channels, rows, from_batch != 0, weight_gradient, bias_gradient,
                              coefficients);
  if (output) fairtrial::norm_input_gradient(gradient, input, norm, coefficients, pixels, output, threads);
}

void depthwise_forward(const Real* input, const Real* before, int before_activation, const Real* weight,
                       const Real* after, int after_activation, const Index* shape, Real* output, double* moments,
                       int threads) {
  const fairtrial::Shape s = shape_of(shape);
  fairtrial::depthwise_forward(input, Norm(before, s.channels, before_activation), weight,
                               Norm(after, s.channels, after_activation), s, output, moments, threads);
}

void depthwise_backward(const Real* gradient, const Real* behind, const Real* coefficients, const Real* output,
                        int behind_activation, const Real* input, const Real* before, int before_activation,
                        const Real* weight, const Index* shape, Real* input_gradient, Real* weight_gradient,
                        double* sums, int threads) {
  const fairtrial::Shape s = shape_of(shape);
  fairtrial::depthwise_backward(
      gradient, fairtrial::NormBehind<Real>{Norm(behind, s.channels, behind_activation), coefficients, output}, input,
      Norm(before, s.channels, before_activation), weight, s, input_gradient, weight_gradient, sums, threads);
}

void windows(const Real* input, const Index* shape, Index size, Real* rows, int threads) {
  fairtrial::windows(input, shape_of(shape), size, rows, threads);
}

}  // extern "C"
