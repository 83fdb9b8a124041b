// Depthwise 3x3 convolution over NHWC, forward and backward, with the batch norms on either side of it.
//
// An image is taken slab by slab: its pixels are brought into a small padded scratch, normalised and cut on the way, so
// that the 3x3 windows need no test for the border, and the nine weights stay in registers.
#pragma once

#include "norm.h"

namespace fairtrial {

struct Shape {
  Index images, height, width, channels, out_height, out_width, stride, top, left;

  Index padded_height() const { return (out_height - 1) * stride + 3; }
  Index padded_width() const { return (out_width - 1) * stride + 3; }
  Index in_pixels() const { return height * width; }
  Index out_pixels() const { return out_height * out_width; }
  // Images whose pixels are summed at once: single pixels would spend more time on the sums than on themselves.
  Index together(Index pixels) const { return std::max<Index>(1, 64 / pixels); }
};

// Weights (channels, 1, 3, 3) as nine rows of channels.
template <class T>
std::vector<T> tap_rows(const T* weight, Index channels) {
  std::vector<T> taps(9 * channels);
  for (Index c = 0; c < channels; ++c)
    for (int tap = 0; tap < 9; ++tap) taps[tap * channels + c] = weight[c * 9 + tap];
  return taps;
}

// Zeroed scratch vectors for one slab at a time. Slabs of each width have a region of their own, so that what one wrote
// never lies in another's border.
template <class T>
class Scratch {
 public:
  explicit Scratch(Index vectors) : whole_(vectors * FAIRTRIAL_VECTOR_BYTES), memory_(2 * whole_ + 64) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    begin_ = memory_.data() + (64 - address % 64) % 64;
  }
  template <class S>
  typename S::Vector* as(S) {
    const Index bytes = S::width * sizeof(T);
    const Index offset = bytes == FAIRTRIAL_VECTOR_BYTES ? 0 : S::width == 1 ? whole_ / 2 * 3 : whole_;
    return reinterpret_cast<typename S::Vector*>(begin_ + offset);
  }

 private:
  Index whole_;
  std::vector<char> memory_;
  char* begin_;
};

// Nine weights, or nine sums, of one slab. They are to stay in registers, so every loop over them is unrolled.
template <class T, class S>
struct Taps {
  typename S::Vector of[9];

  Taps(const T* rows, Index channels, Index c) {
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) of[tap] = S::load(rows + tap * channels + c);
  }
  void store(T* rows, Index channels, Index c) const {
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) S::store(rows + tap * channels + c, of[tap]);
  }
};

// Brings one slab of one image into the scratch, past its zero border.
template <class T, class S>
void bring(S, const T* image, const Shape& s, const Norm<T>& norm, Index c, typename S::Vector* padded) {
  const SlabNorm<T, S> finish(norm, c);
  const Index rows = std::min(s.height, s.padded_height() - s.top);
  const Index columns = std::min(s.width, s.padded_width() - s.left);
  for (Index i = 0; i < rows; ++i) {
    const T* from = image + i * s.width * s.channels + c;
    auto* to = padded + (i + s.top) * s.padded_width() + s.left;
    for (Index j = 0; j < columns; ++j) to[j] = finish(S::load(from + j * s.channels));
  }
}

// One slab of one image: the padded input in `padded`, the output to memory.
template <class T, class S>
void forward_slab(S, const typename S::Vector* padded, const T* taps, const Norm<T>& after, const Shape& s, Index c,
                  T* output) {
  const Index width = s.padded_width(), stride = s.stride, channels = s.channels;
  const Taps<T, S> weights(taps, channels, c);
  const SlabNorm<T, S> finish(after, c);
  for (Index i = 0; i < s.out_height; ++i) {
    const auto* window = padded + i * stride * width;
    T* to = output + i * s.out_width * channels + c;
    for (Index j = 0; j < s.out_width; ++j, window += stride, to += channels) {
      typename S::Vector sum = window[0] * weights.of[0];
#pragma GCC unroll 8
      for (int tap = 1; tap < 9; ++tap) sum += window[tap / 3 * width + tap % 3] * weights.of[tap];
      S::store(to, finish(sum));
    }
  }
}

// output = after(convolution(before(input))). With `moments`, the mean and the squared deviations of the output too.
template <class T>
void depthwise_forward(const T* input, const Norm<T>& before, const T* weight, const Norm<T>& after, const Shape& s,
                       T* output, double* moments, int threads) {
  const std::vector<T> taps = tap_rows(weight, s.channels);
  std::vector<Moments<T>> parts(moments ? threads : 0, Moments<T>(s.channels));
  each_part(s.images, threads, [&](int part, Index begin, Index end) {
    Scratch<T> scratch(s.padded_height() * s.padded_width());
    const Index group = s.together(s.out_pixels());
    for (Index first = begin; first < end; first += group) {
      const Index last = std::min(first + group, end);
      for (Index image = first; image < last; ++image) {
        each_slab<T>(s.channels, [&](auto slab, Index c) {
          auto* padded = scratch.as(slab);
          bring(slab, input + image * s.in_pixels() * s.channels, s, before, c, padded);
          forward_slab(slab, padded, taps.data(), after, s, c, output + image * s.out_pixels() * s.channels);
        });
      }
      if (moments) parts[part].add(output + first * s.out_pixels() * s.channels, (last - first) * s.out_pixels());
    }
  });
  if (moments) Moments<T>::merge(parts, s.channels, moments, moments + s.channels);
}

// What the backward pass knows of the batch norm behind the convolution.
template <class T>
struct NormBehind {
  Norm<T> norm;
  const T *coefficients, *output;
};

// Brings the gradient at the convolution's output into a scratch with a border of two zeros before it.
template <class T, class S>
void bring_gradient(S, const T* gradient, const NormBehind<T>& behind, const Shape& s, Index image, Index c,
                    Index width, typename S::Vector* padded) {
  const SlabNormBack<T, S> back(behind.norm, behind.coefficients, c);
  Index place = image * s.out_pixels() * s.channels + c;
  for (Index i = 0; i < s.out_height; ++i) {
    auto* to = padded + (i + 2) * width + 2;
    for (Index j = 0; j < s.out_width; ++j, place += s.channels) {
      const auto value = S::load(gradient + place);
      to[j] = back.present ? back(S::load(behind.output + place), value) : value;
    }
  }
}

// Adds one slab's part of the weight gradient, nine rows of channels.
template <class T, class S>
void add_weight_gradient(S, const typename S::Vector* padded, const typename S::Vector* gradient, const Shape& s,
                         Index gradient_width, Index c, T* taps) {
  const Index width = s.padded_width(), stride = s.stride;
  Taps<T, S> sums(taps, s.channels, c);
  for (Index i = 0; i < s.out_height; ++i) {
    const auto* window = padded + i * stride * width;
    const auto* factor = gradient + (i + 2) * gradient_width + 2;
    for (Index j = 0; j < s.out_width; ++j, window += stride) {
#pragma GCC unroll 9
      for (int tap = 0; tap < 9; ++tap) sums.of[tap] += window[tap / 3 * width + tap % 3] * factor[j];
    }
  }
  sums.store(taps, s.channels, c);
}

// Writes one slab of the gradient at the input, behind the activation that made `inputs`. For stride 1: each pixel
// gathers from the windows that hold it.
template <class T, class S>
void gather(S, const typename S::Vector* gradient, const typename S::Vector* inputs, const T* taps, Cut<T> cut,
            const Shape& s, Index gradient_width, Index c, T* output) {
  const Taps<T, S> weights(taps, s.channels, c);
  for (Index i = 0; i < s.height; ++i) {
    const auto* window = gradient + (i + s.top) * gradient_width + s.left;
    const auto* input = inputs + (i + s.top) * s.padded_width() + s.left;
    T* to = output + i * s.width * s.channels + c;
    for (Index j = 0; j < s.width; ++j, ++window, to += s.channels) {
      typename S::Vector sum = window[0] * weights.of[8];
#pragma GCC unroll 8
      for (int tap = 1; tap < 9; ++tap) sum += window[tap / 3 * gradient_width + tap % 3] * weights.of[8 - tap];
      S::store(to, cut.gradient(input[j], sum));
    }
  }
}

// The gradient at one slab of the padded input, for any stride: each window adds to the pixels that it holds.
template <class T, class S>
void scatter(S, const typename S::Vector* gradient, const T* taps, const Shape& s, Index gradient_width, Index c,
             typename S::Vector* padded) {
  const Index width = s.padded_width(), stride = s.stride;
  const Taps<T, S> weights(taps, s.channels, c);
  std::fill(padded, padded + s.padded_height() * width, typename S::Vector{});
  for (Index i = 0; i < s.out_height; ++i) {
    auto* window = padded + i * stride * width;
    const auto* factor = gradient + (i + 2) * gradient_width + 2;
    for (Index j = 0; j < s.out_width; ++j, window += stride) {
#pragma GCC unroll 9
      for (int tap = 0; tap < 9; ++tap) window[tap / 3 * width + tap % 3] += factor[j] * weights.of[tap];
    }
  }
}

// Writes what `scatter` made, without the border, as `gather` does.
template <class T, class S>
void write_input_gradient(S, const typename S::Vector* inputs, const typename S::Vector* gradients, Cut<T> cut,
                          const Shape& s, Index c, T* output) {
  const Index rows = std::min(s.height, s.padded_height() - s.top);
  const Index columns = std::min(s.width, s.padded_width() - s.left);
  for (Index i = 0; i < s.height; ++i) {
    const Index start = (i + s.top) * s.padded_width() + s.left;
    T* to = output + i * s.width * s.channels + c;
    const Index read = i < rows ? columns : 0;  // what no window holds has no gradient
    for (Index j = 0; j < read; ++j)
      S::store(to + j * s.channels, cut.gradient(inputs[start + j], gradients[start + j]));
    for (Index j = read; j < s.width; ++j) S::store(to + j * s.channels, typename S::Vector{});
  }
}

// The gradients at the input of the convolution (behind `before`'s activation) and of its weight. With `sums`, what
// batch norm's own backward pass needs of that input gradient: two doubles a channel, as `add_gradients` has them.
template <class T>
void depthwise_backward(const T* gradient, const NormBehind<T>& behind, const T* input, const Norm<T>& before,
                        const T* weight, const Shape& s, T* input_gradient, T* weight_gradient, double* sums,
                        int threads) {
  const std::vector<T> taps = tap_rows(weight, s.channels);
  std::vector<std::vector<T>> tap_gradients(threads, std::vector<T>(9 * s.channels));
  std::vector<Sums<T>> parts(sums ? threads : 0, Sums<T>(s.channels));
  const Norm<T> masked(before.rows, s.channels, 0);
  const Index height = s.out_height + 4, width = s.out_width + 4;
  each_part(s.images, threads, [&](int part, Index begin, Index end) {
    const Index padded = s.padded_height() * s.padded_width();
    Scratch<T> inputs(padded), at_inputs(padded), at_outputs(height * width);
    const Index group = s.together(s.in_pixels());
    for (Index first = begin; first < end; first += group) {
      const Index last = std::min(first + group, end), start = first * s.in_pixels() * s.channels;
      for (Index image = first; image < last; ++image) {
        each_slab<T>(s.channels, [&](auto slab, Index c) {
          const Index place = image * s.in_pixels() * s.channels;
          auto *in = inputs.as(slab), *at_in = at_inputs.as(slab), *at_out = at_outputs.as(slab);
#ifndef NOBRING
          bring(slab, input + place, s, before, c, in);
#endif
          bring_gradient(slab, gradient, behind, s, image, c, width, at_out);
#ifndef NODW
          add_weight_gradient(slab, in, at_out, s, width, c, tap_gradients[part].data());
#endif
          if (s.stride == 1) {
            gather(slab, at_out, in, taps.data(), before.cut, s, width, c, input_gradient + place);
          } else {
#ifndef NOSCAT
            scatter(slab, at_out, taps.data(), s, width, c, at_in);
#endif
#ifndef NOWRITE
            write_input_gradient(slab, in, at_in, before.cut, s, c, input_gradient + place);
#endif
          }
        });
      }
      if (!sums) continue;
      add_gradients(parts[part], input_gradient + start, input + start, masked, (last - first) * s.in_pixels());
    }
  });
  for (Index c = 0; c < s.channels; ++c) {
    for (int tap = 0; tap < 9; ++tap) {
      T sum = 0;
      for (const auto& part : tap_gradients) sum += part[tap * s.channels + c];
      weight_gradient[c * 9 + tap] = sum;
    }
  }
  if (sums) sum_parts(parts, s.channels, sums);
}

}  // namespace fairtrial
