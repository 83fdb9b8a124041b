// Both passes over maps of one or two pixels across, whose images fit into registers: which pixel lies under which tap
// is known to the compiler, and taps that only ever meet zeros are never computed.
#pragma once

#include "depthwise_blocks.h"

#define FAIRTRIAL_INLINE __attribute__((always_inline))

namespace fairtrial {

template <class Body, int... I>
FAIRTRIAL_INLINE inline void unroll(std::integer_sequence<int, I...>, const Body& body) {
  (body(std::integral_constant<int, I>{}), ...);
}

// Calls body(0), body(1), ... body(N - 1), the numbers known to the compiler.
template <int N, class Body>
FAIRTRIAL_INLINE inline void times(const Body& body) {
  unroll(std::make_integer_sequence<int, N>{}, body);
}

// Square maps of Size pixels across, with `Before` zeros above and to the left.
template <int Size, int Stride, int Before>
struct Small {
  static constexpr int out = (Size - 1) / Stride + 1, in_pixels = Size * Size, out_pixels = out * out;
  // The input pixel under a tap of an output pixel, or -1 where there is a zero.
  static constexpr int under(int o, int tap) {
    const int y = o / out * Stride + tap / 3 - Before, x = o % out * Stride + tap % 3 - Before;
    return y < 0 || y >= Size || x < 0 || x >= Size ? -1 : y * Size + x;
  }
  static constexpr bool used(int tap) {
    for (int o = 0; o < out_pixels; ++o)
      if (under(o, tap) >= 0) return true;
    return false;
  }
  static bool is(const Shape& s) {
    return s.height == Size && s.width == Size && s.out_height == out && s.out_width == out && s.top == Before &&
           s.left == Before && (s.stride == Stride || out == 1);
  }
};

template <class M, bool Counts, class T, class S>
void small_forward_slab(S, const Forward<T>& pass, const Block b, Index c) {
  using V = typename S::Vector;
  const Index channels = pass.s.channels;
  const SlabNorm<T, S> finish(pass.before, c);
  V w[9];
  times<9>([&](auto tap) FAIRTRIAL_INLINE {
    if constexpr (M::used(tap)) w[tap] = S::load(pass.taps + tap * channels + c);
  });
  Sink<T, S, Counts> sink(pass, c);
  const T* from = pass.input + b.image * M::in_pixels * channels + c;
  T* to = pass.output + b.image * M::out_pixels * channels + c;
  const Index jump_in = b.images * M::in_pixels * channels, jump_out = b.images * M::out_pixels * channels;
  for (Index image = 0; image < b.images; ++image, from += M::in_pixels * channels, to += M::out_pixels * channels) {
    V value[M::in_pixels];
    times<M::in_pixels>([&](auto i) FAIRTRIAL_INLINE {
      ahead(from + i * channels + jump_in);
      value[i] = finish(S::load(from + i * channels));
    });
    times<M::out_pixels>([&](auto o) FAIRTRIAL_INLINE {
      V sum = {};
      times<9>([&](auto tap) FAIRTRIAL_INLINE {
        constexpr int at = M::under(o, tap);
        if constexpr (at >= 0) sum += value[at] * w[tap];
      });
      ahead_write(to + o * channels + jump_out);
      sink(to + o * channels, sum);
    });
  }
  sink.leave(pass, c);
}

template <class M, class T, class S>
void small_backward_slab(S, const Backward<T>& pass, const Block b, Index c) {
  using V = typename S::Vector;
  const Index channels = pass.s.channels;
  const SlabNorm<T, S> finish(pass.before, c);
  const SlabNormBack<T, S> back(pass.behind.norm, pass.behind.coefficients, c);
  T* few = pass.totals->few.data() + c;
  V d[9], w[9], first = S::load(few + 9 * channels), second = S::load(few + 10 * channels);
  times<9>([&](auto tap) FAIRTRIAL_INLINE {
    if constexpr (M::used(tap)) {
      w[tap] = S::load(pass.taps + tap * channels + c);
      d[tap] = S::load(few + tap * channels);
    }
  });
  const T* in = pass.input + b.image * M::in_pixels * channels + c;
  T* to = pass.input_gradient + b.image * M::in_pixels * channels + c;
  const T* gradient = pass.gradient + b.image * M::out_pixels * channels + c;
  const T* out = pass.behind.output + b.image * M::out_pixels * channels + c;
  const Index jump_in = b.images * M::in_pixels * channels, jump_out = b.images * M::out_pixels * channels;
  for (Index image = 0; image < b.images; ++image) {
    V g[M::out_pixels];
    times<M::out_pixels>([&](auto o) FAIRTRIAL_INLINE {
      ahead(gradient + o * channels + jump_out);
      g[o] = S::load(gradient + o * channels);
      if (back.present) {
        ahead(out + o * channels + jump_out);
        g[o] = back(S::load(out + o * channels), g[o]);
      }
    });
    times<M::in_pixels>([&](auto i) FAIRTRIAL_INLINE {
      ahead(in + i * channels + jump_in);
      ahead_write(to + i * channels + jump_in);
      const V raw = S::load(in + i * channels), value = finish(raw);
      V sum = {};
      times<9>([&](auto tap) FAIRTRIAL_INLINE {
        times<M::out_pixels>([&](auto o) FAIRTRIAL_INLINE {
          if constexpr (M::under(o, tap) == i) {
            sum += g[o] * w[tap];
            d[tap] += g[o] * value;
          }
        });
      });
      const V inner = finish.cut.gradient(value, sum);
      S::store(to + i * channels, inner);
      first += inner;
      second += inner * (raw - finish.mean);
    });
    in += M::in_pixels * channels;
    to += M::in_pixels * channels;
    gradient += M::out_pixels * channels;
    out += M::out_pixels * channels;
  }
  times<9>([&](auto tap) FAIRTRIAL_INLINE {
    if constexpr (M::used(tap)) S::store(few + tap * channels, d[tap]);
  });
  S::store(few + 9 * channels, first);
  S::store(few + 10 * channels, second);
}

template <class M, class T>
bool forward_as(const Forward<T>& pass, Index begin, Index end) {
  if (!M::is(pass.s)) return false;
  each_block(pass, Blocks(pass.s.out_height, pass.s.out_width), begin, end, [&](Block b, auto counts) {
    each_slab<T>(pass.s.channels, [&](auto slab, Index c) {
      small_forward_slab<M, decltype(counts)::value>(slab, pass, b, c);
    });
  });
  return true;
}

template <class M, class T>
bool backward_as(const Backward<T>& pass, Index begin, Index end) {
  if (!M::is(pass.s)) return false;
  each_block(pass, Blocks(pass.s.height, pass.s.width), begin, end, [&](Block b) {
    each_slab<T>(pass.s.channels, [&](auto slab, Index c) { small_backward_slab<M>(slab, pass, b, c); });
  });
  return true;
}

// The maps that there are kernels for; false for all others.
template <class... M>
struct AnyOf {
  template <class T>
  static bool forward(const Forward<T>& pass, Index begin, Index end) {
    return (forward_as<M>(pass, begin, end) || ...);
  }
  template <class T>
  static bool backward(const Backward<T>& pass, Index begin, Index end) {
    return (backward_as<M>(pass, begin, end) || ...);
  }
};
using AnySmall = AnyOf<Small<1, 1, 1>, Small<2, 1, 1>, Small<2, 2, 1>, Small<2, 2, 0>>;

template <class T>
bool small_forward(const Forward<T>& pass, Index begin, Index end) {
  return AnySmall::forward(pass, begin, end);
}

template <class T>
bool small_backward(const Backward<T>& pass, Index begin, Index end) {
  return AnySmall::backward(pass, begin, end);
}

}  // namespace fairtrial
