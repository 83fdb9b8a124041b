// Depthwise 3x3 convolution, backward.
//
// The input is gone through once. A pixel gathers from the windows that hold it, and adds to the gradient of the
// weights by which it went into them.
#pragma once

#include "depthwise_blocks.h"

namespace fairtrial {

// What the backward pass knows of the batch norm behind the convolution.
template <class T>
struct NormBehind {
  Norm<T> norm;
  const T *coefficients, *output;
};

// The sums of a backward pass: the gradients of the nine weights, and the two of `add_gradients`.
constexpr int kTotals = 11, kFirst = 9, kSecond = 10;

// All that a backward pass over some channels reads and writes.
template <class T>
struct Backward {
  const T* gradient;
  NormBehind<T> behind;
  const T* input;
  Norm<T> before;
  const T* taps;
  Shape shape;
  T* input_gradient;
  ChannelSums<T>* totals;
  Channels range;
};

// Reads one slab of the gradient at the convolution's own output.
template <class T, class S>
class GradientSlab {
 public:
  using V = typename S::Vector;

  GradientSlab(const Backward<T>& pass, Index c)
      : back_(pass.behind.norm, pass.behind.coefficients, c), gradient_(pass.gradient), output_(pass.behind.output) {}

  V get(Index place, Index ahead) const {
    ask_to_read(gradient_ + place, ahead);
    const V value = S::load(gradient_ + place);
    if (!back_.present) return value;
    ask_to_read(output_ + place, ahead);
    return back_(S::load(output_ + place), value);
  }

 private:
  SlabNormBack<T, S> back_;
  const T *gradient_, *output_;
};

// Reads one slab of the convolution's input, takes the gradient there to memory, and counts it.
template <class T, class S>
class InputSlab {
 public:
  using V = typename S::Vector;

  InputSlab(const Backward<T>& pass, Index c)
      : finish_(pass.before, c), input_(pass.input), output_(pass.input_gradient),
        to_first_(pass.totals->few(kFirst) + c), to_second_(pass.totals->few(kSecond) + c), first_(S::load(to_first_)),
        second_(S::load(to_second_)) {}

  // Calls gather(value) for the gradient at a pixel of that value.
  template <class Gather>
  void visit(Index place, Index ahead, Gather gather) {
    ask_to_read(input_ + place, ahead);
    ask_to_write(output_ + place, ahead);
    const V raw = S::load(input_ + place), value = finish_(raw);
    const V gradient = finish_.cut.gradient(value, gather(value));
    S::store(output_ + place, gradient);
    first_ += gradient;
    second_ += gradient * (raw - finish_.mean);
  }
  void leave() const {
    S::store(to_first_, first_);
    S::store(to_second_, second_);
  }

 private:
  SlabNorm<T, S> finish_;
  const T* input_;
  T *output_, *to_first_, *to_second_;
  V first_, second_;
};

template <class T, class Compute>
void each_block(const Backward<T>& pass, const Blocks& blocks, Compute compute) {
  Index waiting = 0;
  blocks.each(pass.shape.images, [&](const Block& block) {
    compute(block);
    waiting += block.rows() * pass.shape.width;
    if (waiting < kRowsInT) return;
    pass.totals->flush(pass.range);
    waiting = 0;
  });
  pass.totals->flush(pass.range);
}

// Zeros before the gradient's first row and column, for the pixels whose windows would begin there.
struct Border {
  Index rows, columns;
};

// Brings one slab of the padded rows `from` to `to` of the gradient into the scratch.
template <class T, class S>
void bring_gradient(S, const Backward<T>& pass, const PaddedRows<T, S> padded, const Border border, const Block block,
                    Index from, Index to, Index c) {
  const Index height = pass.shape.out_height, width = pass.shape.out_width, step = pass.shape.channels;
  const Index ahead = block.images * std::min(height, to - from) * width * step;
  const GradientSlab<T, S> gradient(pass, c);
  for (Index image = 0; image < block.images; ++image) {
    for (Index row = from; row < to; ++row) {
      T* to_pixel = padded.row(image, row) + border.columns * S::width;
      const Index i = row - border.rows;
      if (i < 0 || i >= height) {
        for (Index j = 0; padded.rolls() && j < width; ++j) S::store(to_pixel + j * S::width, typename S::Vector{});
        continue;
      }
      Index place = ((block.image + image) * height + i) * width * step + c;
      for (Index j = 0; j < width; ++j, place += step, to_pixel += S::width)
        S::store(to_pixel, gradient.get(place, ahead));
    }
  }
}

// The weights of one slab that a pixel can meet whose row is `Phase` modulo the stride, and their gradients' sums.
// In a column of phase q it meets those at (y, x) with y = Phase and x = q modulo the stride.
template <int Stride, int Phase, class T, class S>
class TapSlab {
 public:
  using V = typename S::Vector;

  TapSlab(const Backward<T>& pass, Index c) : totals_(*pass.totals), c_(c) {
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) {
      if (tap / 3 % Stride != Phase) continue;
      weights_[tap] = S::load(pass.taps + tap * pass.shape.channels + c);
      sums_[tap] = S::load(totals_.few(tap) + c);
    }
  }
  // The gradient at a pixel. `rows` point to the gradient of the window that holds it first, for each tap's row.
  V meet(const T* const* rows, int q, V value) {
    V gradient = {};
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) {
      if (tap / 3 % Stride != Phase || tap % 3 % Stride != q) continue;
      const V there = S::load(rows[tap / 3] - tap % 3 / Stride * S::width);
      gradient += there * weights_[tap];
      sums_[tap] += there * value;
    }
    return gradient;
  }
  void leave() const {
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap)
      if (tap / 3 % Stride == Phase) S::store(totals_.few(tap) + c_, sums_[tap]);
  }

 private:
  const ChannelSums<T>& totals_;
  Index c_;
  V weights_[9], sums_[9];
};

// One slab of those rows of a block that are `Phase` modulo the stride, counted from the first row of zeros.
template <int Stride, int Phase, class T, class S>
void gather(S, const Backward<T>& pass, const PaddedRows<T, S> padded, const Border border, const Block block,
            Index c) {
  const Index top = pass.shape.top, left = pass.shape.left, height = pass.shape.height, width = pass.shape.width;
  const Index step = pass.shape.channels, ahead = block.rows() * width * step;
  const Index start = block.top + (block.top + top + Phase) % Stride;
  if (start >= block.bottom) return;
  TapSlab<Stride, Phase, T, S> taps(pass, c);
  InputSlab<T, S> input(pass, c);
  for (Index image = 0; image < block.images; ++image) {
    for (Index y = start; y < block.bottom; y += Stride) {
      const T* rows[3] = {};
#pragma GCC unroll 3
      for (int tap = Phase; tap < 3; tap += Stride)
        rows[tap] = padded.row(image, (y + top - tap) / Stride + border.rows) +
                    (left / Stride + border.columns) * S::width;
      const Index row = ((block.image + image) * height + y) * width;
      for (Index first = -(left % Stride); first < width; first += Stride) {
#pragma GCC unroll 2
        for (int q = 0; q < Stride; ++q) {
          const Index x = first + q;
          if (Stride > 1 && (x < 0 || x >= width)) continue;
          input.visit((row + x) * step + c, ahead, [&](auto value) { return taps.meet(rows, q, value); });
        }
#pragma GCC unroll 3
        for (int tap = Phase; tap < 3; tap += Stride) rows[tap] += S::width;
      }
    }
  }
  taps.leave();
  input.leave();
}

// For strides 1 and 2.
template <class T>
void backward_gathering(const Backward<T>& pass) {
  const Shape& s = pass.shape;
  const Blocks blocks(s, s.height);
  const Border border{(2 - s.top) / s.stride, (2 - s.left) / s.stride};
  // The rows of the padded gradient that the input's rows y and up, or up to y, meet.
  const auto first_of = [&](Index y) { return (y + s.top - 2 + s.stride - 1) / s.stride + border.rows; };
  const auto end_of = [&](Index y) { return (y - 1 + s.top) / s.stride + 1 + border.rows; };
  const Index rows = blocks.whole() ? end_of(s.height) : (blocks.rows + 1) / s.stride + 1;
  const Index columns = (s.width - 1 + s.left) / s.stride + 1;
  Scratch<T> scratch(rows, std::max(columns, s.out_width) + border.columns, pass.range, blocks);
  each_block(pass, blocks, [&](const Block& block) {
    const Index from = block.top == 0 ? 0 : std::max(first_of(block.top), end_of(block.top));
    const Index to = end_of(block.bottom);
    each_slab<T>(pass.range, [&](auto slab, Index c) {
      const auto padded = scratch.of(slab, c);
      bring_gradient(slab, pass, padded, border, block, from, to, c);
      if (s.stride == 1) return gather<1, 0>(slab, pass, padded, border, block, c);
      gather<2, 0>(slab, pass, padded, border, block, c);
      gather<2, 1>(slab, pass, padded, border, block, c);
    });
  });
}

// For strides of 3 and more, with which a pixel lies in one window at most.
template <class T>
void backward_apart(const Backward<T>& pass) {
  const Shape& s = pass.shape;
  each_block(pass, Blocks(s, s.height), [&](const Block& block) {
    each_slab<T>(pass.range, [&](auto slab, Index c) {
      using S = decltype(slab);
      const GradientSlab<T, S> gradient(pass, c);
      InputSlab<T, S> input(pass, c);
      const Index lines = block.rows() * s.width, first = (block.image * s.height + block.top) * s.width;
      for (Index pixel = first; pixel < first + lines; ++pixel) {
        const Index y = pixel / s.width % s.height + s.top, x = pixel % s.width + s.left;
        const Index tap_y = y % s.stride, tap_x = x % s.stride, i = y / s.stride, j = x / s.stride;
        const bool held = tap_y < 3 && tap_x < 3 && i < s.out_height && j < s.out_width;
        input.visit(pixel * s.channels + c, 0, [&](auto value) {
          if (!held) return decltype(value){};
          const Index image = pixel / s.in_pixels(), tap = tap_y * 3 + tap_x;
          const auto there = gradient.get(((image * s.out_height + i) * s.out_width + j) * s.channels + c, 0);
          T* sum = pass.totals->few(int(tap)) + c;
          S::store(sum, S::load(sum) + there * value);
          return there * S::load(pass.taps + tap * s.channels + c);
        });
      }
      input.leave();
    });
  });
}

template <class T>
void backward(const Backward<T>& pass) {
  if (pass.shape.stride < 3) return backward_gathering(pass);
  backward_apart(pass);
}

}  // namespace fairtrial
