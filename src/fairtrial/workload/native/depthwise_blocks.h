// What all depthwise kernels share: sizes, the division of a batch into blocks, scratch rows, running sums.
#pragma once

#include <utility>

#include "norm.h"

namespace fairtrial {

// Pixels of a block. All slabs of a block are done before the next block, so that the lines of memory of which a slab
// uses a part are still in the cache for the next slab.
constexpr Index kBlockPixels = 16;

struct Shape {
  Index images, height, width, channels, out_height, out_width, stride, top, left;

  Index in_pixels() const { return height * width; }
  Index out_pixels() const { return out_height * out_width; }
};

// Weights (channels, 1, 3, 3) as nine rows of channels.
template <class T>
std::vector<T> tap_rows(const T* weight, Index channels) {
  std::vector<T> taps(9 * channels);
  for (Index c = 0; c < channels; ++c)
    for (int tap = 0; tap < 9; ++tap) taps[tap * channels + c] = weight[c * 9 + tap];
  return taps;
}

// Asks for memory that the next block will read or write. A slab's pixels are a stride apart that the processor does
// not foresee; asking saves a fifth of the time. Addresses past the end do no harm.
inline void ahead(const void* place) { __builtin_prefetch(place, 0, 2); }
inline void ahead_write(const void* place) { __builtin_prefetch(place, 1, 2); }

// Some rows of one image, or all rows of some images.
struct Block {
  Index image, images, top, bottom;
};

class Blocks {
 public:
  Blocks(Index height, Index width)
      : rows(std::clamp<Index>(kBlockPixels / width, 1, height)),
        images(rows == height ? std::max<Index>(1, kBlockPixels / (height * width)) : 1),
        height_(height) {}

  const Index rows, images;

  bool whole() const { return rows == height_; }

  template <class Body>
  void each(Index begin, Index end, Body body) const {
    for (Index image = begin; image < end; image += images)
      for (Index top = 0; top < height_; top += rows)
        body(Block{image, std::min(images, end - image), top, std::min(top + rows, height_)});
  }

 private:
  Index height_;
};

// Rows of vectors with a border of zeros. Blocks of whole images use them afresh, slab by slab; blocks of some rows of
// an image keep the rows of every slab, because the next block needs the last of them again: a ring, so the number of
// rows is rounded up to a power of two.
template <class T>
class Rows {
 public:
  Rows(Index rows, Index width, Index images, Index channels, bool ring)
      : rows_(rows), width_(width), images_(images), ring_(ring) {
    for (Index power = 1; ring && (rows_ = power) < rows;) power *= 2;
    memory_.resize((ring ? channels : 2 * kWhole) * rows_ * width * images + 64 / sizeof(T));
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    begin_ = memory_.data() + (64 - address % 64) % 64 / sizeof(T);
  }

  // The rows of one slab.
  template <class S>
  struct Of {
    T* begin;
    Index rows, width, mask;

    T* row(Index image, Index number) const { return begin + (image * rows + (number & mask)) * width * S::width; }
  };
  // Slabs of each width have a region of their own, so that what one wrote never lies in another's border.
  template <class S>
  Of<S> of(S, Index c) {
    return {begin_ + (ring_ ? c : 2 * (kWhole - S::width)) * rows_ * width_ * images_, rows_, width_,
            ring_ ? rows_ - 1 : -1};
  }

 private:
  static constexpr Index kWhole = FAIRTRIAL_VECTOR_BYTES / sizeof(T);

  Index rows_, width_, images_;
  bool ring_;
  std::vector<T> memory_;
  T* begin_;
};

// What a forward pass reads and writes.
template <class T>
struct Forward {
  const T* input;
  Norm<T> before;
  const T* taps;
  Norm<T> after;
  Shape s;
  T* output;
  Moments<T>* moments;  // or null
};

// Takes a slab's output vectors to memory: counts them for the moments, or puts them through the norm behind.
template <class T, class S, bool Counts>
class Sink {
 public:
  using V = typename S::Vector;

  Sink(const Forward<T>& pass, Index c) : finish_(pass.after, c) {
    if constexpr (!Counts) return;
    origin_ = S::load(&pass.moments->origin[c]);
    first_ = S::load(&pass.moments->sums.few_first[c]);
    second_ = S::load(&pass.moments->sums.few_second[c]);
  }
  void operator()(T* to, V value) {
    if constexpr (Counts) {
      const V deviation = value - origin_;
      first_ += deviation;
      second_ += deviation * deviation;
      S::store(to, value);
    } else {
      S::store(to, finish_(value));
    }
  }
  void leave(const Forward<T>& pass, Index c) const {
    if constexpr (!Counts) return;
    S::store(&pass.moments->sums.few_first[c], first_);
    S::store(&pass.moments->sums.few_second[c], second_);
  }

 private:
  SlabNorm<T, S> finish_;
  V origin_{}, first_{}, second_{};
};

// Calls compute(Block, counts) for all blocks. With moments the first block is computed twice: once to learn where the
// values lie, from where deviations are then taken.
template <class T, class Compute>
void each_block(const Forward<T>& pass, const Blocks& blocks, Index begin, Index end, Compute compute) {
  if (!pass.moments) return blocks.each(begin, end, [&](Block block) { compute(block, std::false_type{}); });
  const Index across = pass.s.out_width * pass.s.channels;
  Moments<T>& moments = *pass.moments;
  Index pixels = 0;
  blocks.each(begin, end, [&](Block block) {
    const Index count = block.images * (block.bottom - block.top) * pass.s.out_width;
    if (moments.rows == 0) {
      compute(block, std::false_type{});
      moments.set_origin(pass.output + (block.image * pass.s.out_height + block.top) * across,
                         std::min<Index>(count, 16));
    }
    compute(block, std::true_type{});
    moments.rows += count;
    pixels += count;
    if (pixels < kRowsInT) return;
    moments.sums.flush();
    pixels = 0;
  });
  moments.sums.flush();
}

// What the backward pass knows of the batch norm behind the convolution.
template <class T>
struct NormBehind {
  Norm<T> norm;
  const T *coefficients, *output;
};

// Sums of the backward pass a channel: nine of the weight's gradient, two for the norm before the convolution.
constexpr Index kTotals = 11;

// Running sums: in T for some pixels, in double for all.
template <class T>
struct Totals {
  std::vector<T> few;
  std::vector<double> all;

  explicit Totals(Index count) : few(count), all(count) {}

  void flush() {
    for (std::size_t i = 0; i < few.size(); ++i) {
      all[i] += few[i];
      few[i] = 0;
    }
  }
};

// What a backward pass reads and writes.
template <class T>
struct Backward {
  const T* gradient;
  NormBehind<T> behind;
  const T* input;
  Norm<T> before;
  const T* taps;
  Shape s;
  T* input_gradient;
  Totals<T>* totals;
};

template <class T, class Compute>
void each_block(const Backward<T>& pass, const Blocks& blocks, Index begin, Index end, Compute compute) {
  Index pixels = 0;
  blocks.each(begin, end, [&](Block block) {
    compute(block);
    pixels += block.images * (block.bottom - block.top) * pass.s.width;
    if (pixels < kRowsInT) return;
    pass.totals->flush();
    pixels = 0;
  });
  pass.totals->flush();
}

}  // namespace fairtrial
