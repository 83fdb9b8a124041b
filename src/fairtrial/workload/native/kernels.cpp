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

// Turns moments into an affine, and moves the running statistics towards them. `correction` turns the biased variance
// into the one that the running average takes.
template <class T>
void norm_from_batch(const double* moments, Index rows, Index channels, const T* weight, const T* bias, double eps,
                     double momentum, double correction, T* running_mean, T* running_var, T* affine) {
  for (Index c = 0; c < channels; ++c) {
    const double mean = moments[c], variance = moments[channels + c] / double(rows);
    const double inverse_deviation = 1 / std::sqrt(variance + eps);
    affine[c] = T(mean);
    affine[channels + c] = T(double(weight[c]) * inverse_deviation);
    // What T cannot hold of the mean goes into the shift.
    affine[2 * channels + c] = T(double(bias[c]) + (double(T(mean)) - mean) * double(weight[c]) * inverse_deviation);
    affine[3 * channels + c] = T(inverse_deviation);
    running_mean[c] = T((1 - momentum) * double(running_mean[c]) + momentum * mean);
    running_var[c] = T((1 - momentum) * double(running_var[c]) + momentum * variance * correction);
  }
}

template <class T>
void norm_from_running(Index channels, const T* weight, const T* bias, double eps, const T* running_mean,
                       const T* running_var, T* affine) {
  for (Index c = 0; c < channels; ++c) {
    const double inverse_deviation = 1 / std::sqrt(double(running_var[c]) + eps);
    affine[c] = running_mean[c];
    affine[channels + c] = T(double(weight[c]) * inverse_deviation);
    affine[2 * channels + c] = bias[c];
    affine[3 * channels + c] = T(inverse_deviation);
  }
}

template <class T>
void norm_forward(const T* input, const T* affine, int activation, Index rows, Index channels, T* output, int threads) {
  const MaybeNorm<T> norm{affine, Cut<T>(activation), channels};
  each_place<T>(rows, channels, threads, [&](auto slab, Index place, Index c) {
    using S = decltype(slab);
    S::store(output + place, norm(S::load(input + place), c, slab));
  });
}

template <class T>
void norm_sums(const T* gradient, const T* input, const T* affine, int activation, Index rows, Index channels,
               double* sums, int threads) {
  std::vector<Sums<T>> parts(threads, Sums<T>(channels));
  each_part(rows, threads, [&](int part, Index begin, Index end) {
    add_gradients(parts[part], gradient + begin * channels, input + begin * channels, Affine<T>(affine, channels),
                  Cut<T>(activation), end - begin);
  });
  sum_parts(parts, channels, sums);
}

// Turns the sums into the gradients of weight and bias, and into what `input_gradient` takes off.
template <class T>
void norm_coefficients(const double* sums, Index rows, Index channels, const T* affine, int from_batch,
                       T* weight_gradient, T* bias_gradient, T* coefficients) {
  for (Index c = 0; c < channels; ++c) {
    const double inverse_deviation = double(affine[3 * channels + c]), inner = sums[c], product = sums[channels + c];
    weight_gradient[c] = T(product * inverse_deviation);
    bias_gradient[c] = T(inner);
    coefficients[c] = from_batch ? T(inner / double(rows)) : T(0);
    coefficients[channels + c] = from_batch ? T(product * inverse_deviation * inverse_deviation / double(rows)) : T(0);
  }
}

template <class T>
void norm_backward(const T* gradient, const T* input, const T* affine, const T* coefficients, int activation, Index rows,
                   Index channels, T* output, int threads) {
  const Affine<T> norm(affine, channels);
  const Cut<T> cut(activation);
  each_place<T>(rows, channels, threads, [&](auto slab, Index place, Index c) {
    using S = decltype(slab);
    S::store(output + place,
             input_gradient(slab, gradient + place, input + place, norm, coefficients, channels, cut, c));
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
using Cut = fairtrial::Cut<Real>;
using MaybeNorm = fairtrial::MaybeNorm<Real>;

static fairtrial::Shape shape_of(const Index* numbers) {
  fairtrial::Shape shape;
  std::memcpy(&shape, numbers, sizeof shape);
  return shape;
}

extern "C" {

int vector_bytes() { return FAIRTRIAL_VECTOR_BYTES; }

void batch_moments(const Real* values, Index rows, Index channels, double* moments, int threads) {
  fairtrial::batch_moments(values, rows, channels, moments, threads);
}

void norm_from_batch(const double* moments, Index rows, Index channels, const Real* weight, const Real* bias,
                     double eps, double momentum, double correction, Real* running_mean, Real* running_var,
                     Real* affine) {
  fairtrial::norm_from_batch(moments, rows, channels, weight, bias, eps, momentum, correction, running_mean,
                             running_var, affine);
}

void norm_from_running(Index channels, const Real* weight, const Real* bias, double eps, const Real* running_mean,
                       const Real* running_var, Real* affine) {
  fairtrial::norm_from_running(channels, weight, bias, eps, running_mean, running_var, affine);
}

void norm_forward(const Real* input, const Real* affine, int activation, Index rows, Index channels, Real* output,
                  int threads) {
  fairtrial::norm_forward(input, affine, activation, rows, channels, output, threads);
}

void norm_sums(const Real* gradient, const Real* input, const Real* affine, int activation, Index rows, Index channels,
               double* sums, int threads) {
  fairtrial::norm_sums(gradient, input, affine, activation, rows, channels, sums, threads);
}

void norm_coefficients(const double* sums, Index rows, Index channels, const Real* affine, int from_batch,
                       Real* weight_gradient, Real* bias_gradient, Real* coefficients) {
  fairtrial::norm_coefficients(sums, rows, channels, affine, from_batch, weight_gradient, bias_gradient, coefficients);
}

void norm_backward(const Real* gradient, const Real* input, const Real* affine, const Real* coefficients,
                   int activation, Index rows, Index channels, Real* output, int threads) {
  fairtrial::norm_backward(gradient, input, affine, coefficients, activation, rows, channels, output, threads);
}

void depthwise_forward(const Real* input, const Real* before, int before_activation, const Real* weight,
                       const Real* after, int after_activation, const Index* shape, Real* output, double* moments,
                       int threads) {
  const fairtrial::Shape s = shape_of(shape);
  fairtrial::depthwise_forward(input, MaybeNorm{before, Cut(before_activation), s.channels}, weight,
                               MaybeNorm{after, Cut(after_activation), s.channels}, s, output, moments, threads);
}

void depthwise_backward(const Real* gradient, const Real* behind, const Real* coefficients, const Real* output,
                        int behind_activation, const Real* input, const Real* before, int before_activation,
                        const Real* weight, const Index* shape, Real* input_gradient, Real* weight_gradient,
                        double* sums, int threads) {
  const fairtrial::Shape s = shape_of(shape);
  fairtrial::depthwise_backward(
      gradient, fairtrial::NormBehind<Real>{behind, coefficients, output, Cut(behind_activation)}, input,
      MaybeNorm{before, Cut(before_activation), s.channels}, weight, s, input_gradient, weight_gradient, sums, threads);
}

void windows(const Real* input, const Index* shape, Index size, Real* rows, int threads) {
  fairtrial::windows(input, shape_of(shape), size, rows, threads);
}

}  // extern "C"
