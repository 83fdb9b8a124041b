// Depthwise 3x3 convolution, forward.
#pragma once

#include "depthwise_blocks.h"

namespace fairtrial {

// Sums of deviations of the output from an origin, and of their squares.
template <class T>
struct OutputSums {
  Zeros<T> origin;
  ChannelSums<T> sums;

  explicit OutputSums(Index channels) : origin(channels), sums(2, channels) {}
};

// All that a forward pass over some channels reads and writes. `counted` may be null.
template <class T>
struct Forward {
  const T* input;
  Norm<T> before;
  const T* taps;
  Norm<T> after;
  Shape shape;
  T* output;
  OutputSums<T>* counted;
  Channels range;
};

// Takes one slab's output to memory, through the norm, and counts it if it is to be counted.
template <class T, class S, bool Counts>
class OutputSlab {
 public:
  using V = typename S::Vector;

  OutputSlab(const Forward<T>& pass, Index c)
      : finishes_(pass.after.rows || std::isfinite(pass.after.cut.low)), finish_(pass.after, c) {
    if constexpr (Counts) {
      origin_ = S::load(pass.counted->origin.data() + c);
      first_ = S::load(pass.counted->sums.few(0) + c);
      second_ = S::load(pass.counted->sums.few(1) + c);
    }
  }
  void put(T* to, V value) {
    if (finishes_) value = finish_(value);
    S::store(to, value);
    if constexpr (Counts) {
      const V deviation = value - origin_;
      first_ += deviation;
      second_ += deviation * deviation;
    }
  }
  void leave(const Forward<T>& pass, Index c) const {
    if constexpr (Counts) {
      S::store(pass.counted->sums.few(0) + c, first_);
      S::store(pass.counted->sums.few(1) + c, second_);
    }
  }

 private:
  bool finishes_;
  SlabNorm<T, S> finish_;
  V origin_{}, first_{}, second_{};
};

// Calls compute(Block, counts) for every block. Where the output is counted, the first block is computed twice: its mean
// is what deviations are taken from.
template <class T, class Compute>
void each_block(const Forward<T>& pass, const Blocks& blocks, Compute compute) {
  const Shape& s = pass.shape;
  if (!pass.counted) return blocks.each(s.images, [&](const Block& block) { compute(block, std::false_type{}); });
  Index waiting = 0;
  bool first = true;
  blocks.each(s.images, [&](const Block& block) {
    const Index pixels = block.rows() * s.out_width;
    if (first) {
      compute(block, std::false_type{});
      set_origin(pass.output, pixels, s.channels, pass.range, pass.counted->origin.data());
      first = false;
    }
    compute(block, std::true_type{});
    waiting += pixels;
    if (waiting < kRowsInT) return;
    pass.counted->sums.flush(pass.range);
    waiting = 0;
  });
  pass.counted->sums.flush(pass.range);
}

// Brings one slab of the padded rows `from` to `to` into the scratch, finished.
template <class T, class S>
void bring(S, const Forward<T>& pass, const PaddedRows<T, S> padded, const Block block, Index from, Index to, Index c) {
  const Index top = pass.shape.top, height = pass.shape.height, width = pass.shape.width, step = pass.shape.channels;
  const Index columns = std::min(width, padded.width - pass.shape.left), left = pass.shape.left;
  const Index ahead = block.images * std::min(height, to - from) * width * step;
  const SlabNorm<T, S> finish(pass.before, c);
  for (Index image = 0; image < block.images; ++image) {
    for (Index row = from; row < to; ++row) {
      T* place = padded.row(image, row) + left * S::width;
      const Index y = row - top;
      if (y < 0 || y >= height) {
        for (Index j = 0; padded.rolls() && j < columns; ++j) S::store(place + j * S::width, typename S::Vector{});
        continue;
      }
      const T* pixel = pass.input + ((block.image + image) * height + y) * width * step + c;
      for (Index j = 0; j < columns; ++j, pixel += step, place += S::width) {
        ask_to_read(pixel, ahead);
        S::store(place, finish(S::load(pixel)));
      }
    }
  }
}

// Computes one slab of a block's output.
template <bool Counts, class T, class S>
void convolve(S, const Forward<T>& pass, const PaddedRows<T, S> padded, const Block block, Index c) {
  using V = typename S::Vector;
  const Index stride = pass.shape.stride, height = pass.shape.out_height, width = pass.shape.out_width;
  const Index step = pass.shape.channels, ahead = block.rows() * width * step;
  V weights[9];
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) weights[tap] = S::load(pass.taps + tap * step + c);
  OutputSlab<T, S, Counts> output(pass, c);
  for (Index image = 0; image < block.images; ++image) {
    for (Index i = block.top; i < block.bottom; ++i) {
      const T* rows[3];
#pragma GCC unroll 3
      for (int y = 0; y < 3; ++y) rows[y] = padded.row(image, i * stride + y);
      T* to = pass.output + ((block.image + image) * height + i) * width * step + c;
      for (Index j = 0; j < width; ++j, to += step) {
        V sum = S::load(rows[0]) * weights[0];
#pragma GCC unroll 8
        for (int tap = 1; tap < 9; ++tap) sum += S::load(rows[tap / 3] + tap % 3 * S::width) * weights[tap];
#pragma GCC unroll 3
        for (int y = 0; y < 3; ++y) rows[y] += stride * S::width;
        ask_to_write(to, ahead);
        output.put(to, sum);
      }
    }
  }
  output.leave(pass, c);
}

template <class T>
void forward(const Forward<T>& pass) {
  const Shape& s = pass.shape;
  const Blocks blocks(s, s.out_height);
  Scratch<T> scratch((blocks.rows - 1) * s.stride + 3, (s.out_width - 1) * s.stride + 3, pass.range, blocks);
  each_block(pass, blocks, [&](const Block& block, auto counts) {
    // Of the rows in the scratch, the block above has brought some.
    const Index from = block.top == 0 ? 0 : std::max(block.top * s.stride, (block.top - 1) * s.stride + 3);
    const Index to = (block.bottom - 1) * s.stride + 3;
    each_slab<T>(pass.range, [&](auto slab, Index c) {
      const auto padded = scratch.of(slab, c);
      bring(slab, pass, padded, block, from, to, c);
      convolve<decltype(counts)::value>(slab, pass, padded, block, c);
    });
  });
}

}  // namespace fairtrial
