// Depthwise 3x3 convolution over NHWC, forward and backward, with the batch norms on either side of it.
//
// Maps of one or two pixels across have kernels of their own, which keep a whole image in registers; all others go
// through a scratch of a few padded rows.
#pragma once

#include "depthwise_backward.h"
#include "depthwise_forward.h"
#include "depthwise_small.h"

namespace fairtrial {

// output = after(convolution(before(input))). With `moments`, the mean and the squared deviations of the output too,
// and then there is no `after`.
template <class T>
void depthwise_forward(const T* input, const Norm<T>& before, const T* weight, const Norm<T>& after, const Shape& s,
                       T* output, double* moments, int threads) {
  const std::vector<T> taps = tap_rows(weight, s.channels);
  std::vector<Moments<T>> parts(moments ? threads : 0, Moments<T>(s.channels));
  each_part(s.images, threads, [&](int part, Index begin, Index end) {
    if (begin == end) return;
    const Forward<T> pass{input, before, taps.data(), after, s, output, moments ? &parts[part] : nullptr};
    if (!small_forward(pass, begin, end)) forward(pass, begin, end);
  });
  if (moments) Moments<T>::merge(parts, s.channels, moments, moments + s.channels);
}

// The gradients at the input of the convolution (behind `before`'s activation) and of its weight. With `sums`, what
// batch norm's own backward pass needs of that input gradient: two doubles a channel, as `add_gradients` has them.
template <class T>
void depthwise_backward(const T* gradient, const NormBehind<T>& behind, const T* input, const Norm<T>& before,
                        const T* weight, const Shape& s, T* input_gradient, T* weight_gradient, double* sums,
                        int threads) {
  const Index channels = s.channels;
  const std::vector<T> taps = tap_rows(weight, channels);
  std::vector<Totals<T>> parts(threads, Totals<T>(kTotals * channels));
  each_part(s.images, threads, [&](int part, Index begin, Index end) {
    if (begin == end) return;
    const Backward<T> pass{gradient, behind, input, before, taps.data(), s, input_gradient, &parts[part]};
    if (!small_backward(pass, begin, end)) backward(pass, begin, end);
  });
  std::vector<double>& all = parts[0].all;
  for (int part = 1; part < threads; ++part)
    for (Index i = 0; i < kTotals * channels; ++i) all[i] += parts[part].all[i];
  for (Index c = 0; c < channels; ++c)
    for (int tap = 0; tap < 9; ++tap) weight_gradient[c * 9 + tap] = T(all[tap * channels + c]);
  if (sums) std::copy(all.begin() + 9 * channels, all.end(), sums);
}

}  // namespace fairtrial
