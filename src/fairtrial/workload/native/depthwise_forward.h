// The forward pass by blocks of rows.
#pragma once

#include "depthwise_blocks.h"

namespace fairtrial {

// Brings the padded rows that a block newly needs into the scratch, normalised and cut. With `clears`, the rows above
// and below an image are set to zero; else nothing has ever been written there.
template <class T, class S, class Lines>
void bring(S, const Forward<T>& pass, const Lines lines, const Block b, Index from_row, Index to_row, Index columns,
           Index jump, bool clears, Index c) {
  const Index top = pass.s.top, left = pass.s.left, height = pass.s.height, width = pass.s.width;
  const Index channels = pass.s.channels;
  const SlabNorm<T, S> finish(pass.before, c);
  for (Index image = 0; image < b.images; ++image) {
    for (Index r = from_row; r < to_row; ++r) {
      T* to = lines.row(image, r) + left * S::width;
      const Index y = r - top;
      if (y < 0 || y >= height) {
        if (clears)
          for (Index j = 0; j < columns; ++j) S::store(to + j * S::width, typename S::Vector{});
        continue;
      }
      const T* from = pass.input + ((b.image + image) * height + y) * width * channels + c;
      for (Index j = 0; j < columns; ++j, from += channels, to += S::width) {
        ahead(from + jump);
        S::store(to, finish(S::load(from)));
      }
    }
  }
}

// Convolves a block's rows in the scratch, the nine weights in registers.
template <bool Counts, class T, class S, class Lines>
void convolve(S, const Forward<T>& pass, const Lines lines, const Block b, Index c) {
  using V = typename S::Vector;
  const Index stride = pass.s.stride, out_width = pass.s.out_width, channels = pass.s.channels;
  V w[9];
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) w[tap] = S::load(pass.taps + tap * channels + c);
  Sink<T, S, Counts> sink(pass, c);
  const Index jump = (b.bottom - b.top) * b.images * out_width * channels;
  for (Index image = 0; image < b.images; ++image) {
    for (Index i = b.top; i < b.bottom; ++i) {
      const T* one = lines.row(image, i * stride);
      const T* two = lines.row(image, i * stride + 1);
      const T* three = lines.row(image, i * stride + 2);
      T* to = pass.output + ((b.image + image) * pass.s.out_height + i) * out_width * channels + c;
      for (Index j = 0; j < out_width; ++j) {
        V sum = S::load(one) * w[0];
        sum += S::load(one + S::width) * w[1];
        sum += S::load(one + 2 * S::width) * w[2];
        sum += S::load(two) * w[3];
        sum += S::load(two + S::width) * w[4];
        sum += S::load(two + 2 * S::width) * w[5];
        sum += S::load(three) * w[6];
        sum += S::load(three + S::width) * w[7];
        sum += S::load(three + 2 * S::width) * w[8];
        one += stride * S::width;
        two += stride * S::width;
        three += stride * S::width;
        ahead_write(to + jump);
        sink(to, sum);
        to += channels;
      }
    }
  }
  sink.leave(pass, c);
}

// Images from `begin` to `end`.
template <class T>
void forward(const Forward<T>& pass, Index begin, Index end) {
  const Shape& s = pass.s;
  const Blocks blocks(s.out_height, s.out_width);
  const Index padded_width = (s.out_width - 1) * s.stride + 3;
  const Index columns = std::min(s.width, padded_width - s.left);
  Rows<T> scratch((blocks.rows - 1) * s.stride + 3, padded_width, blocks.images, s.channels, !blocks.whole());
  each_block(pass, blocks, begin, end, [&](Block b, auto counts) {
    const Index from_row = b.top == 0 ? 0 : std::max(b.top * s.stride, (b.top - 1) * s.stride + 3);
    const Index to_row = (b.bottom - 1) * s.stride + 3;
    const Index jump = (blocks.whole() ? blocks.images * s.height : to_row - from_row) * s.width * s.channels;
    each_slab<T>(s.channels, [&](auto slab, Index c) {
      const auto lines = scratch.of(slab, c);
      bring(slab, pass, lines, b, from_row, to_row, columns, jump, !blocks.whole(), c);
      convolve<decltype(counts)::value>(slab, pass, lines, b, c);
    });
  });
}

}  // namespace fairtrial
