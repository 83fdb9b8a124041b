// How the depthwise convolution goes through a batch, and where it keeps what it has read.
#pragma once

#include "norm.h"

namespace fairtrial {

struct Shape {
  Index images, height, width, channels, out_height, out_width, stride, top, left;

  Index in_pixels() const { return height * width; }
  Index out_pixels() const { return out_height * out_width; }
};

// A part of a batch: rows `top` to `bottom` of an image, or all rows of some neighboring images.
struct Block {
  Index image, images, top, bottom;

  Index rows() const { return images * (bottom - top); }
};

// The division of a batch into blocks, by rows of its input or of its output. Small blocks stay in the first cache;
// larger ones load a slab's coefficients less often. Images of 8x8 are best taken whole, those of 16x16 by single rows.
struct Blocks {
  Index height, rows, images;

  Blocks(const Shape& s, Index height)
      : height(height),
        rows(s.in_pixels() <= 64 ? height : std::clamp<Index>(16 / s.width, 1, height)),
        images(rows == height ? std::max<Index>(1, 16 / s.in_pixels()) : 1) {}

  // Whether a block holds whole images.
  bool whole() const { return rows == height; }

  template <class Body>
  void each(Index batch, Body body) const {
    for (Index image = 0; image < batch; image += images)
      for (Index top = 0; top < height; top += rows)
        body(Block{image, std::min(images, batch - image), top, std::min(top + rows, height)});
  }
};

// Asks for memory that is to be read, or written, a block later. The processor does not foresee the jumps from pixel to
// pixel within a slab. Past the end of an array the request comes to nothing.
template <class T>
inline void ask_to_read(const T* here, Index ahead) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(here) + ahead * sizeof(T)), 0, 2);
}
template <class T>
inline void ask_to_write(const T* here, Index ahead) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(here) + ahead * sizeof(T)), 1, 2);
}

// One slab of the rows that a block reads, a vector a pixel, with zeros around them.
template <class T, class S>
struct PaddedRows {
  T* begin;
  Index rows, width, mask;

  bool rolls() const { return mask != -1; }
  T* row(Index image, Index number) const { return begin + (image * rows + (number & mask)) * width * S::width; }
};

// Memory for the padded rows of a block, for some channels. Where blocks are whole images, they all use the same; slabs of each width have
// a region of their own, so that what one wrote never lies in another's border. Where they are not, each slab keeps the
// rows that the next block reads too: row n lies in place n modulo a power of two.
template <class T>
class Scratch {
 public:
  Scratch(Index rows, Index width, Channels range, const Blocks& blocks)
      : rows_(rows), width_(width), first_(range.begin), images_(blocks.images), rolling_(!blocks.whole()), mask_(-1) {
    if (rolling_) {
      for (rows_ = 1; rows_ < rows;) rows_ *= 2;
      mask_ = rows_ - 1;
    }
    memory_.resize((rolling_ ? range.end - range.begin : 2 * kWhole) * image_size() * images_ + 64 / sizeof(T));
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    begin_ = memory_.data() + (64 - address % 64) % 64 / sizeof(T);
  }

  template <class S>
  PaddedRows<T, S> of(S, Index c) {
    const Index before = rolling_ ? c - first_ : 2 * (kWhole - S::width);
    return {begin_ + before * image_size() * images_, rows_, width_, mask_};
  }

 private:
  static constexpr Index kWhole = FAIRTRIAL_VECTOR_BYTES / sizeof(T);

  Index image_size() const { return rows_ * width_; }

  Index rows_, width_, first_, images_;
  bool rolling_;
  Index mask_;
  std::vector<T> memory_;
  T* begin_;
};

}  // namespace fairtrial
