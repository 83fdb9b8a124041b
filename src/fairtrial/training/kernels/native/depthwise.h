// Depthwise 3x3 convolution over NHWC, forward and backward, with the batch norms on either side of it.
//
// A block of pixels (`Block`) is taken slab by slab, the nine weights in registers, while the next block is on its way
// from memory. Maps of one and of 2x2 pixels have code of their own, in which no window meets the border at run time.
#pragma once

#include "depthwise_backward.h"
#include "depthwise_forward.h"
#include "depthwise_small.h"

namespace fairtrial {

// Weights (channels, 1, 3, 3) as nine rows of channels.
template <class T>
std::vector<T> tap_rows(const T* weight, Index channels) {
  std::vector<T> taps(9 * channels);
  for (int tap = 0; tap < 9; ++tap)
    for (Index c = 0; c < channels; ++c) taps[tap * channels + c] = weight[c * 9 + tap];
  return taps;
}

// output = after(convolution(before(input))). With `moments`, the mean and the squared deviations of the output too.
template <class T>
void depthwise_forward(const T* input, const Norm<T>& before, const T* weight, const Norm<T>& after, const Shape& s,
                       T* output, double* moments, const Threads& threads) {
  const std::vector<T> taps = tap_rows(weight, s.channels);
  OutputSums<T> counted(moments ? s.channels : 0);
  each_channels<T>(threads, s.channels, [&](Channels range) {
    const Forward<T> pass{input, before, taps.data(), after, s, output, moments ? &counted : nullptr, range};
    if (!forward_small(pass)) forward(pass);
  });
  if (!moments) return;
  set_moments(counted.origin.data(), counted.sums.all(0), counted.sums.all(1), s.images * s.out_pixels(), s.channels,
              moments, moments + s.channels);
}

// The gradients at the input of the convolution (behind `before`'s activation) and of its weight. With `sums`, what
// batch norm's own backward pass needs of that input gradient: two doubles a channel, as `add_gradients` has them.
template <class T>
void depthwise_backward(const T* gradient, const NormBehind<T>& behind, const T* input, const Norm<T>& before,
                        const T* weight, const Shape& s, T* input_gradient, T* weight_gradient, double* sums,
                        const Threads& threads) {
  const std::vector<T> taps = tap_rows(weight, s.channels);
  ChannelSums<T> totals(kTotals, s.channels);
  each_channels<T>(threads, s.channels, [&](Channels range) {
    const Backward<T> pass{gradient, behind, input, before, taps.data(), s, input_gradient, &totals, range};
    if (!backward_small(pass)) backward(pass);
  });
  for (Index c = 0; c < s.channels; ++c)
    for (int tap = 0; tap < 9; ++tap) weight_gradient[c * 9 + tap] = T(totals.all(tap)[c]);
  if (!sums) return;
  std::copy(totals.all(kFirst), totals.all(kFirst) + s.channels, sums);
  std::copy(totals.all(kSecond), totals.all(kSecond) + s.channels, sums + s.channels);
}

}  // namespace fairtrial
