// The backward pass by blocks of rows.
#pragma once

#include "depthwise_blocks.h"

namespace fairtrial {

// Rows and columns of zeros before the gradient in the scratch: windows that begin above or left of the output.
struct Border {
  Index rows, columns;
};

// Brings the rows of the gradient that a block newly needs into the scratch, through the norm behind the convolution.
template <class T, class S, class Lines>
void bring_gradient(S, const Backward<T>& pass, const Lines lines, const Block b, const Border border, Index from_row,
                    Index to_row, Index jump, bool clears, Index c) {
  using V = typename S::Vector;
  const Index channels = pass.s.channels, out_width = pass.s.out_width, out_height = pass.s.out_height;
  const SlabNormBack<T, S> back(pass.behind.norm, pass.behind.coefficients, c);
  const T *gradients = pass.gradient, *outputs = pass.behind.output;
  for (Index image = 0; image < b.images; ++image) {
    for (Index r = from_row; r < to_row; ++r) {
      T* to = lines.row(image, r) + border.columns * S::width;
      const Index i = r - border.rows;
      if (i < 0 || i >= out_height) {
        if (clears)
          for (Index j = 0; j < out_width; ++j) S::store(to + j * S::width, V{});
        continue;
      }
      Index place = ((b.image + image) * out_height + i) * out_width * channels + c;
      for (Index j = 0; j < out_width; ++j, place += channels, to += S::width) {
        ahead(gradients + place + jump);
        const V value = S::load(gradients + place);
        if (back.present) {
          ahead(outputs + place + jump);
          S::store(to, back(S::load(outputs + place), value));
        } else {
          S::store(to, value);
        }
      }
    }
  }
}

// Writes the gradient at the input, in those rows of a block that lie P rows behind the beginning of a window, modulo
// the stride; each pixel gathers from the windows that hold it. The weight's gradient is taken on the way. `Reach` is
// the stride, or 3 for every stride that is larger: each Reach-th tap of a row or column meets a pixel.
template <int Reach, int P, class T, class S, class Lines>
void gather(S, const Backward<T>& pass, const Lines lines, const Block b, const Border border, Index c) {
  using V = typename S::Vector;
  const Shape& s = pass.s;
  const Index step = Reach < 3 ? Reach : s.stride, top = s.top, left = s.left, width = s.width, height = s.height;
  const Index y0 = b.top + (P + step - (b.top + top) % step) % step, channels = s.channels;
  if (y0 >= b.bottom) return;
  const SlabNorm<T, S> finish(pass.before, c);
  T* few = pass.totals->few.data() + c;
  V w[9], d[9], first = S::load(few + 9 * channels), second = S::load(few + 10 * channels);
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) {
    if (tap / 3 % Reach != P) continue;
    w[tap] = S::load(pass.taps + tap * channels + c);
    d[tap] = S::load(few + tap * channels);
  }
  const Index jump = (b.bottom - b.top) * b.images * width * channels;
  const Index cell0 = left / step, x0 = cell0 * step - left;
  const T* input = pass.input + c;
  T* output = pass.input_gradient + c;
  for (Index image = 0; image < b.images; ++image) {
    for (Index y = y0; y < b.bottom; y += step) {
      const T* g[3];
#pragma GCC unroll 3
      for (int tap = 0; tap < 3; ++tap)
        if (tap % Reach == P)
          g[tap] = lines.row(image, (y + top - tap) / step + border.rows) + (cell0 + border.columns) * S::width;
      const Index row = ((b.image + image) * height + y) * width * channels;
      for (Index cell = x0; cell < width; cell += step) {
#pragma GCC unroll 3
        for (int q = 0; q < Reach; ++q) {
          const Index x = cell + q;
          if (Reach > 1 && (x < 0 || x >= width)) continue;
          const T* in = input + row + x * channels;
          T* to = output + row + x * channels;
          ahead(in + jump);
          ahead_write(to + jump);
          const V raw = S::load(in), value = finish(raw);
          V sum = {};
#pragma GCC unroll 9
          for (int tap = 0; tap < 9; ++tap) {
            if (tap / 3 % Reach != P || tap % 3 % Reach != q) continue;
            const V there = S::load(g[tap / 3] - tap % 3 / Reach * S::width);
            sum += there * w[tap];
            d[tap] += there * value;
          }
          const V inner = finish.cut.gradient(value, sum);
          S::store(to, inner);
          first += inner;
          second += inner * (raw - finish.mean);
        }
        for (Index x = cell + 3; x < std::min(cell + step, width); ++x)
          if (Reach == 3 && x >= 0) S::store(output + row + x * channels, V{});
#pragma GCC unroll 3
        for (int tap = 0; tap < 3; ++tap)
          if (tap % Reach == P) g[tap] += S::width;
      }
    }
  }
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap)
    if (tap / 3 % Reach == P) S::store(few + tap * channels, d[tap]);
  S::store(few + 9 * channels, first);
  S::store(few + 10 * channels, second);
}

// With a stride above 3, clears the rows that no window holds.
template <class T, class S>
void zero_rows(S, const Backward<T>& pass, const Block& b, Index c) {
  const Shape& s = pass.s;
  for (Index image = 0; image < b.images; ++image)
    for (Index y = b.top; y < b.bottom; ++y)
      for (Index x = 0; x < s.width; ++x)
        if ((y + s.top) % s.stride > 2)
          S::store(pass.input_gradient + (((b.image + image) * s.height + y) * s.width + x) * s.channels + c,
                   typename S::Vector{});
}

// All rows of a block.
template <class T, class S, class Lines>
void gather_all(S slab, const Backward<T>& pass, const Lines& lines, const Block& b, const Border& border, Index c) {
  if (pass.s.stride == 1) {
    gather<1, 0>(slab, pass, lines, b, border, c);
  } else if (pass.s.stride == 2) {
    gather<2, 0>(slab, pass, lines, b, border, c);
    gather<2, 1>(slab, pass, lines, b, border, c);
  } else {
    gather<3, 0>(slab, pass, lines, b, border, c);
    gather<3, 1>(slab, pass, lines, b, border, c);
    gather<3, 2>(slab, pass, lines, b, border, c);
    zero_rows(slab, pass, b, c);
  }
}

// Images from `begin` to `end`.
template <class T>
void backward(const Backward<T>& pass, Index begin, Index end) {
  const Shape& s = pass.s;
  const Blocks blocks(s.height, s.width);
  const Index channels = s.channels, stride = s.stride;
  const Border border{(2 - s.top) / stride, (2 - s.left) / stride};
  const Index after_rows = std::max<Index>(0, (s.height - 1 + s.top) / stride - (s.out_height - 1));
  const Index after_columns = std::max<Index>(0, (s.width - 1 + s.left) / stride - (s.out_width - 1));
  Rows<T> scratch(blocks.whole() ? border.rows + s.out_height + after_rows : (blocks.rows + 1) / stride + 1,
                  border.columns + s.out_width + after_columns, blocks.images, s.channels, !blocks.whole());
  // The first row of the scratch that the input's row y reads, and the one behind the last that the row before y reads.
  const auto first = [&](Index y) { return (y + s.top - 2 + border.rows * stride + stride - 1) / stride; };
  const auto behind = [&](Index y) { return (y - 1 + s.top) / stride + 1 + border.rows; };
  each_block(pass, blocks, begin, end, [&](Block b) {
    const Index from_row = b.top == 0 ? 0 : std::max(first(b.top), behind(b.top));
    const Index to_row = behind(b.bottom);
    const Index jump = (blocks.whole() ? blocks.images * s.out_height : to_row - from_row) * s.out_width * channels;
    each_slab<T>(channels, [&](auto slab, Index c) {
      const auto lines = scratch.of(slab, c);
      bring_gradient(slab, pass, lines, b, border, from_row, to_row, jump, !blocks.whole(), c);
      gather_all(slab, pass, lines, b, border, c);
    });
  });
}

}  // namespace fairtrial
