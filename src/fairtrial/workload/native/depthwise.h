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

// A norm that may be absent, in which case the values are taken as they are.
template <class T>
struct MaybeNorm {
  const T* rows;
  Cut<T> cut;
  Index channels;

  template <class S>
  typename S::Vector operator()(typename S::Vector value, Index c, S slab) const {
    if (!rows) return cut(value);
    const Affine<T> affine(rows, channels);
    return cut(affine.scaled(affine.centred(value, c, slab), c, slab));
  }
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

// Brings one slab of one image into the scratch, past its zero border.
template <class T, class S>
void bring(S slab, const T* image, const Shape& s, const MaybeNorm<T>& norm, Index c, typename S::Vector* padded) {
  const Index rows = std::min(s.height, s.padded_height() - s.top), columns = std::min(s.width, s.padded_width() - s.left);
  for (Index i = 0; i < rows; ++i) {
    const T* from = image + i * s.width * s.channels + c;
    auto* to = padded + (i + s.top) * s.padded_width() + s.left;
    for (Index j = 0; j < columns; ++j) to[j] = norm(S::load(from + j * s.channels), c, slab);
  }
}

// One slab of one image: the padded input in `padded`, the output to memory.
template <class T, class S>
void forward_slab(S slab, const typename S::Vector* padded, const T* taps, const MaybeNorm<T>& after, const Shape& s,
                  Index c, T* output) {
  const Index width = s.padded_width();
  typename S::Vector weights[9];
  for (int tap = 0; tap < 9; ++tap) weights[tap] = S::load(taps + tap * s.channels + c);
  for (Index i = 0; i < s.out_height; ++i) {
    for (Index j = 0; j < s.out_width; ++j) {
      const auto* window = padded + i * s.stride * width + j * s.stride;
      typename S::Vector sum = window[0] * weights[0];
      for (int tap = 1; tap < 9; ++tap) sum += window[tap / 3 * width + tap % 3] * weights[tap];
      S::store(output + (i * s.out_width + j) * s.channels + c, after(sum, c, slab));
    }
  }
}

// output = after(convolution(before(input))). With `moments`, the mean and the squared deviations of the output too.
template <class T>
void depthwise_forward(const T* input, const MaybeNorm<T>& before, const T* weight, const MaybeNorm<T>& after,
                       const Shape& s, T* output, double* moments, int threads) {
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

// What the backward pass knows of the batch norm behind the convolution; `rows` is null where there is none.
template <class T>
struct NormBehind {
  const T *rows, *coefficients, *output;
  Cut<T> cut;
};

// Brings the gradient at the convolution's output into a scratch with a border of two zeros before it.
template <class T, class S>
void bring_gradient(S slab, const T* gradient, const NormBehind<T>& norm, const Shape& s, Index image, Index c,
                    Index width, typename S::Vector* padded) {
  const Index start = image * s.out_pixels() * s.channels + c;
  for (Index i = 0; i < s.out_height; ++i) {
    for (Index j = 0; j < s.out_width; ++j) {
      const Index place = start + (i * s.out_width + j) * s.channels;
      padded[(i + 2) * width + j + 2] =
          norm.rows ? input_gradient(slab, gradient + place, norm.output + place, Affine<T>(norm.rows, s.channels),
                                     norm.coefficients, s.channels, norm.cut, c)
                    : S::load(gradient + place);
    }
  }
}

// Adds one slab's part of the weight gradient, nine rows of channels.
template <class T, class S>
void add_weight_gradient(S, const typename S::Vector* padded, const typename S::Vector* gradient, const Shape& s,
                         Index gradient_width, Index c, T* taps) {
  typename S::Vector sums[9];
  for (int tap = 0; tap < 9; ++tap) sums[tap] = S::load(taps + tap * s.channels + c);
  for (Index i = 0; i < s.out_height; ++i) {
    for (Index j = 0; j < s.out_width; ++j) {
      const auto* window = padded + (i * s.padded_width() + j) * s.stride;
      const auto factor = gradient[(i + 2) * gradient_width + j + 2];
      for (int tap = 0; tap < 9; ++tap) sums[tap] += window[tap / 3 * s.padded_width() + tap % 3] * factor;
    }
  }
  for (int tap = 0; tap < 9; ++tap) S::store(taps + tap * s.channels + c, sums[tap]);
}

// Writes one slab of the gradient at the convolution's input, behind the activation that `padded` came out of.
template <class T, class S>
void input_slab(S, const typename S::Vector* padded, const typename S::Vector* gradient, const T* taps, Cut<T> cut,
                const Shape& s, Index gradient_width, Index c, T* output) {
  typename S::Vector weights[9];
  for (int tap = 0; tap < 9; ++tap) weights[tap] = S::load(taps + tap * s.channels + c);
  for (Index i = 0; i < s.height; ++i) {
    for (Index j = 0; j < s.width; ++j) {
      // The windows that hold this pixel are those whose start lies up to two before it, and on a stride.
      const Index bottom = i + s.top, right = j + s.left;
      typename S::Vector sum{};
      if (s.stride == 1) {
        const auto* window = gradient + bottom * gradient_width + right;
        for (int tap = 0; tap < 9; ++tap) sum += window[tap / 3 * gradient_width + tap % 3] * weights[8 - tap];
      } else {
        for (Index y = bottom % s.stride; y < 3; y += s.stride)
          for (Index x = right % s.stride; x < 3; x += s.stride)
            sum += gradient[((bottom - y) / s.stride + 2) * gradient_width + (right - x) / s.stride + 2] *
                   weights[y * 3 + x];
      }
      const bool read = bottom < s.padded_height() && right < s.padded_width();
      const auto value = read ? padded[bottom * s.padded_width() + right] : typename S::Vector{};
      S::store(output + (i * s.width + j) * s.channels + c, cut.gradient(value, sum));
    }
  }
}

// The gradients at the input of the convolution (behind `before`'s activation) and of its weight. With `sums`, what
// batch norm's own backward pass needs of that input gradient: two doubles a channel, as `add_gradients` has them.
template <class T>
void depthwise_backward(const T* gradient, const NormBehind<T>& behind, const T* input, const MaybeNorm<T>& before,
                        const T* weight, const Shape& s, T* input_gradient, T* weight_gradient, double* sums,
                        int threads) {
  const std::vector<T> taps = tap_rows(weight, s.channels);
  std::vector<std::vector<T>> tap_gradients(threads, std::vector<T>(9 * s.channels));
  std::vector<Sums<T>> parts(sums ? threads : 0, Sums<T>(s.channels));
  const Index height = std::max(s.height + s.top, s.out_height) + 2, width = std::max(s.width + s.left, s.out_width) + 2;
  each_part(s.images, threads, [&](int part, Index begin, Index end) {
    Scratch<T> inputs(s.padded_height() * s.padded_width()), gradients(height * width);
    const Index group = s.together(s.in_pixels());
    for (Index first = begin; first < end; first += group) {
      const Index last = std::min(first + group, end);
      for (Index image = first; image < last; ++image) {
        each_slab<T>(s.channels, [&](auto slab, Index c) {
          const Index start = image * s.in_pixels() * s.channels;
          auto *padded = inputs.as(slab), *behind_it = gradients.as(slab);
          bring(slab, input + start, s, before, c, padded);
          bring_gradient(slab, gradient, behind, s, image, c, width, behind_it);
          add_weight_gradient(slab, padded, behind_it, s, width, c, tap_gradients[part].data());
          input_slab(slab, padded, behind_it, taps.data(), before.cut, s, width, c, input_gradient + start);
        });
      }
      const Index start = first * s.in_pixels() * s.channels;
      if (sums)
        add_gradients(parts[part], input_gradient + start, input + start, Affine<T>(before.rows, s.channels), Cut<T>(0),
                      (last - first) * s.in_pixels());
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
