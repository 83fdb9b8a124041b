// Depthwise 3x3 convolution of maps so small that one slab of an image lies in registers, forward and backward.
//
// Which pixel lies under which tap is known when this is compiled, so there is no border and nothing to multiply by its
// zeros: a map of one pixel meets the middle tap alone.
#pragma once

#include <utility>

#include "depthwise_backward.h"
#include "depthwise_forward.h"

#define FAIRTRIAL_INLINE __attribute__((always_inline))

namespace fairtrial {

// Calls body(0), ..., body(N - 1), each number a type of its own.
template <class Body, int... I>
FAIRTRIAL_INLINE inline void each_number(std::integer_sequence<int, I...>, const Body& body) {
  (body(std::integral_constant<int, I>{}), ...);
}
template <int N, class Body>
FAIRTRIAL_INLINE inline void each_number(const Body& body) {
  each_number(std::make_integer_sequence<int, N>{}, body);
}

// Square maps of `size` pixels a side, with `Before` zeros above and to the left.
template <int Size, int Stride, int Before>
struct Small {
  static constexpr int out_size = (Size - 1) / Stride + 1, in_pixels = Size * Size, out_pixels = out_size * out_size;

  static bool fits(const Shape& s) {
    return s.height == Size && s.width == Size && s.out_height == out_size && s.out_width == out_size &&
           (s.stride == Stride || out_size == 1) && s.top == Before && s.left == Before;
  }
  // The pixel that an output pixel has under a tap; -1 in the border.
  static constexpr int under(int output, int tap) {
    const int y = output / out_size * Stride + tap / 3 - Before, x = output % out_size * Stride + tap % 3 - Before;
    return y < 0 || y >= Size || x < 0 || x >= Size ? -1 : y * Size + x;
  }
  // The output pixel that has a pixel under a tap; -1 if there is none.
  static constexpr int over(int pixel, int tap) {
    for (int output = 0; output < out_pixels; ++output)
      if (under(output, tap) == pixel) return output;
    return -1;
  }
  static constexpr bool uses(int tap) {
    for (int output = 0; output < out_pixels; ++output)
      if (under(output, tap) >= 0) return true;
    return false;
  }
};

template <class Map, bool Counts, class T, class S>
void forward_small_slab(S, const Forward<T>& pass, const Block block, Index c) {
  using V = typename S::Vector;
  const Index step = pass.shape.channels;
  const Index in_step = Map::in_pixels * step, out_step = Map::out_pixels * step;
  const Index in_ahead = block.images * in_step, out_ahead = block.images * out_step;
  const SlabNorm<T, S> finish(pass.before, c);
  OutputSlab<T, S, Counts> output(pass, c);
  V weights[9];
  each_number<9>([&](auto tap) FAIRTRIAL_INLINE {
    if constexpr (Map::uses(tap)) weights[tap] = S::load(pass.taps + tap * step + c);
  });
  const T* from = pass.input + block.image * in_step + c;
  T* to = pass.output + block.image * out_step + c;
  for (Index image = 0; image < block.images; ++image, from += in_step, to += out_step) {
    V values[Map::in_pixels];
    each_number<Map::in_pixels>([&](auto pixel) FAIRTRIAL_INLINE {
      ask_to_read(from + pixel * step, in_ahead);
      values[pixel] = finish(S::load(from + pixel * step));
    });
    each_number<Map::out_pixels>([&](auto pixel) FAIRTRIAL_INLINE {
      V sum = {};
      each_number<9>([&](auto tap) FAIRTRIAL_INLINE {
        constexpr int under = Map::under(pixel, tap);
        if constexpr (under >= 0) sum += values[under] * weights[tap];
      });
      ask_to_write(to + pixel * step, out_ahead);
      output.put(to + pixel * step, sum);
    });
  }
  output.leave(pass, c);
}

template <class Map, class T, class S>
void backward_small_slab(S, const Backward<T>& pass, const Block block, Index c) {
  using V = typename S::Vector;
  const Index step = pass.shape.channels;
  const Index in_step = Map::in_pixels * step, out_step = Map::out_pixels * step;
  const Index in_ahead = block.images * in_step, out_ahead = block.images * out_step;
  const GradientSlab<T, S> gradient(pass, c);
  InputSlab<T, S> input(pass, c);
  V weights[9], sums[9];
  each_number<9>([&](auto tap) FAIRTRIAL_INLINE {
    if constexpr (Map::uses(tap)) {
      weights[tap] = S::load(pass.taps + tap * step + c);
      sums[tap] = S::load(pass.totals->few(tap) + c);
    }
  });
  for (Index image = block.image; image < block.image + block.images; ++image) {
    V gradients[Map::out_pixels];
    each_number<Map::out_pixels>([&](auto pixel) FAIRTRIAL_INLINE {
      gradients[pixel] = gradient.get(image * out_step + pixel * step + c, out_ahead);
    });
    each_number<Map::in_pixels>([&](auto at) FAIRTRIAL_INLINE {
      input.visit(image * in_step + at * step + c, in_ahead, [&](V value) FAIRTRIAL_INLINE {
        V sum = {};
        each_number<9>([&](auto tap) FAIRTRIAL_INLINE {
          constexpr int over = Map::over(at, tap);
          if constexpr (over >= 0) {
            sum += gradients[over] * weights[tap];
            sums[tap] += gradients[over] * value;
          }
        });
        return sum;
      });
    });
  }
  each_number<9>([&](auto tap) FAIRTRIAL_INLINE {
    if constexpr (Map::uses(tap)) S::store(pass.totals->few(tap) + c, sums[tap]);
  });
  input.leave();
}

template <class Map, class T>
bool forward_if(const Forward<T>& pass) {
  if (!Map::fits(pass.shape)) return false;
  each_block(pass, Blocks(pass.shape, Map::out_size), [&](const Block& block, auto counts) {
    each_slab<T>(pass.range, [&](auto slab, Index c) {
      forward_small_slab<Map, decltype(counts)::value>(slab, pass, block, c);
    });
  });
  return true;
}

template <class Map, class T>
bool backward_if(const Backward<T>& pass) {
  if (!Map::fits(pass.shape)) return false;
  each_block(pass, Blocks(pass.shape, pass.shape.height), [&](const Block& block) {
    each_slab<T>(pass.range, [&](auto slab, Index c) { backward_small_slab<Map>(slab, pass, block, c); });
  });
  return true;
}

// Do what is to be done and say so, if the maps are small enough. Maps of 4x4 pixels gain
// nothing from this: backward, they need more registers than there are.
template <class T>
bool forward_small(const Forward<T>& pass) {
  return forward_if<Small<1, 1, 1>>(pass) || forward_if<Small<2, 1, 1>>(pass) ||
         forward_if<Small<2, 2, 1>>(pass);
}
template <class T>
bool backward_small(const Backward<T>& pass) {
  return backward_if<Small<1, 1, 1>>(pass) || backward_if<Small<2, 1, 1>>(pass) ||
         backward_if<Small<2, 2, 1>>(pass);
}

}  // namespace fairtrial
