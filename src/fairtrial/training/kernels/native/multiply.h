// Convolutions that are matrix products, forward and backward.
//
// Products go block by block of pixels, so that what comes before and after one (normalizing, statistics, gradients of
// norms) finds its numbers in the processor's cache. Threads take blocks in turn. A product is never divided, as its
// last bits depend on its shape; what is summed over blocks is summed in their order.
#pragma once

#include "unit.h"

namespace fairtrial {

// Numbers that a block's inputs and outputs may have together: half a megabyte of floats, well within an L2 cache.
constexpr Index kBlockNumbers = 128 * 1024;
// A block has at least this many pixels; a product of fewer is slow.
constexpr Index kLeastBlock = 64;

// The windows of a dense convolution as rows of a matrix (pixels, size * size * channels), from one output pixel to
// another; or, with `Add`, what comes back along the same way, added to the input's gradient.
template <class T, class Pixel>
void each_window(const Unit<T>& unit, Index begin, Index end, Pixel pixel) {
  const Shape& s = unit.shape;
  for (Index row = begin; row < end; ++row) {
    const Index image = row / s.out_pixels(), place = row % s.out_pixels();
    const Index up = place / s.out_width * s.stride - s.top, left = place % s.out_width * s.stride - s.left;
    const Index first = std::clamp<Index>(-left, 0, unit.size);
    const Index last = std::clamp<Index>(s.width - left, first, unit.size);
    for (Index y = 0; y < unit.size; ++y) {
      const bool inside = up + y >= 0 && up + y < s.height;
      const Index from = ((image * s.height + up + y) * s.width + left) * s.channels;
      pixel((row - begin) * unit.depth() + y * unit.size * s.channels, from, (inside ? first : unit.size) * s.channels,
            (inside ? last : unit.size) * s.channels, unit.size * s.channels);
    }
  }
}

template <class T>
void windows(const Unit<T>& unit, const T* input, Index begin, Index end, T* rows) {
  each_window(unit, begin, end, [=](Index to, Index from, Index first, Index last, Index count) {
    for (Index place = 0; place < count; ++place)
      rows[to + place] = place >= first && place < last ? input[from + place] : T(0);
  });
}

template <class T>
void add_windows(const Unit<T>& unit, const T* rows, Index begin, Index end, T* input_gradient) {
  each_window(unit, begin, end, [=](Index to, Index from, Index first, Index last, Index) {
    for (Index place = first; place < last; ++place) input_gradient[from + place] += rows[to + place];
  });
}

// The blocks of a unit's pixels.
struct PixelBlocks {
  Index pixels, step, count;

  // With `whole`, one block: BLAS shares each product out between threads of its own.
  template <class T>
  PixelBlocks(const Unit<T>& unit, bool whole) : pixels(unit.pixels()), step(pixels) {
    const Index most = std::max(kLeastBlock, kBlockNumbers / (unit.depth() + unit.outputs));
    if (!whole && most < pixels) {
      const Index blocks = (pixels + most - 1) / most;
      step = ((pixels + blocks - 1) / blocks + 15) / 16 * 16;
    }
    count = (pixels + step - 1) / step;
  }
  Index begin(Index block) const { return block * step; }
  Index size(Index block) const { return std::min(step, pixels - begin(block)); }
  // The first group of a block's sums, and the groups of all.
  Index group(Index block) const { return block * groups_of(step); }
  Index groups() const { return group(count - 1) + groups_of(size(count - 1)); }

 private:
  static Index groups_of(Index rows) { return (rows + kRowsInT - 1) / kRowsInT; }
};

// A convolution by matrix products, and the map that it reads.
template <class T>
class Multiply {
 public:
  Multiply(const Unit<T>& unit, const Read<T>& read, Products<T> products, bool whole, const Threads& threads)
      : unit(unit), read(read), products(products), whole(whole), threads(threads), blocks(unit, whole) {}

  // Fills in the unit's map; with `moments`, its mean and squared deviations too.
  void forward(double* moments) const {
    Moments<T> counted(moments, blocks.groups(), unit.outputs);
    Room<T> scratch;
    if (blocks.count == 1) {
      forward_block(0, scratch, counted, threads);
    } else {
      std::atomic<Index> next{0};
      threads.share([&] {
        Room<T> own;
        for (Index block; (block = next.fetch_add(1)) < blocks.count;) forward_block(block, own, counted, Threads());
      });
    }
    counted.finish(blocks.pixels, moments, moments + unit.outputs);
  }

  // A block of what a product reads: where it lies, or brought into `scratch`.
  const T* block_of(Index block, Room<T>& scratch, const Threads& inside) const {
    const Index begin = blocks.begin(block), depth = unit.depth();
    if (unit.kind == kPointwise && read.finished()) return read.raw + begin * depth;
    scratch.make(blocks.step * depth);
    if (unit.kind == kWindows)
      windows(unit, read.raw, begin, begin + blocks.size(block), scratch.data());
    else
      norm_forward(read.raw + begin * depth, read.norm, blocks.size(block), scratch.data(), inside);
    return scratch.data();
  }

  const Unit<T>& unit;
  const Read<T> read;
  const Products<T> products;
  const bool whole;
  const Threads& threads;
  const PixelBlocks blocks;

 private:
  void forward_block(Index block, Room<T>& scratch, Moments<T>& counted, const Threads& inside) const {
    const Index begin = blocks.begin(block), rows = blocks.size(block), outputs = unit.outputs, depth = unit.depth();
    T* made = unit.raw + begin * outputs;
    if (unit.bias)
      for (Index row = 0; row < rows; ++row) std::copy(unit.bias, unit.bias + outputs, made + row * outputs);
    products({block_of(block, scratch, inside), depth}, {unit.weight, depth, true}, rows, outputs, depth,
             unit.bias != nullptr, made);
    counted.add(blocks.group(block), made, rows, inside);
  }
};

// The way back through such a convolution and the norm behind it.
//
// Each block has two parts. Its own part makes the gradient at the convolution's output and, of it, at the input; the
// part in turn, which waits for the blocks before, adds to the gradients that sum over all pixels. Threads do what is
// next of either kind, so that two of them work side by side even where there is one block.
template <class T>
class MultiplyBack {
 public:
  // `gradient` is at the output of what comes next, `next` is null or where the one at the input goes.
  MultiplyBack(const Multiply<T>& way, const T* gradient, const Norm<T>& norm, const T* coefficients, T* next)
      : way_(way), unit_(way.unit), blocks_(way.blocks), gradient_(gradient), norm_(norm), coefficients_(coefficients),
        next_(next), windowed_(unit_.kind == kWindows), sums_wanted_(next && !way.read.finished()),
        slots_(way.threads.count() == 1 || blocks_.count == 1 ? 1 : 2 * way.threads.count()),
        behind_(norm.rows ? slots_ * blocks_.step * unit_.outputs : 0),
        at_windows_(next && windowed_ ? blocks_.step * unit_.depth() : 0),
        of_bias_(unit_.bias_gradient ? unit_.outputs : 0), sums_(sums_wanted_ ? blocks_.groups() : 0, unit_.depth()),
        made_(std::make_unique<std::atomic<bool>[]>(2 * blocks_.count)), left_(made_.get() + blocks_.count) {}

  // Fills in the gradients; returns the sums for the norm of what the convolution reads, or nothing if it has none.
  std::vector<double> run() {
    if (next_ && windowed_) std::fill(next_, next_ + unit_.in_pixels() * unit_.shape.channels, T(0));
    if (blocks_.count == 1) make_gradient(0, way_.threads);
    if (way_.whole)
      work();
    else
      way_.threads.share([this] { work(); });
    std::copy(of_bias_.begin(), of_bias_.end(), unit_.bias_gradient);
    return sums_wanted_ ? sums_.total() : std::vector<double>();
  }

 private:
  void work() {
    for (Wait wait; !(summed_.load(std::memory_order_acquire) == blocks_.count && begun_.load() >= blocks_.count);) {
      if (take_in_turn() || take_own())
        wait = Wait{};
      else
        wait();
    }
  }

  bool take_in_turn() {
    if (!can_sum() || summing_.exchange(true, std::memory_order_acquire)) return false;
    const bool can = can_sum();  // another thread may have been here just now
    if (can) {
      const Index block = summed_.load();
      sum(block);
      summed_.store(block + 1, std::memory_order_release);
    }
    summing_.store(false, std::memory_order_release);
    return can;
  }
  bool can_sum() const {
    const Index block = summed_.load(std::memory_order_acquire);
    return block < blocks_.count && made_[block].load(std::memory_order_acquire);
  }

  bool take_own() {
    Index block = begun_.load();
    do {
      // Its slot must be free: the block that had it is past both parts.
      const Index before = block - slots_;
      if (block >= blocks_.count || before >= summed_.load(std::memory_order_acquire)) return false;
      if (before >= 0 && !left_[before].load(std::memory_order_acquire)) return false;
    } while (!begun_.compare_exchange_weak(block, block + 1));
    if (blocks_.count > 1) make_gradient(block, Threads());
    if (next_ && !windowed_) to_input(block);
    left_[block].store(true, std::memory_order_release);
    return true;
  }

  // The gradient at the convolution's output.
  const T* gradient(Index block) const {
    if (!norm_.rows) return gradient_ + blocks_.begin(block) * unit_.outputs;
    return behind_.data() + block % slots_ * blocks_.step * unit_.outputs;
  }

  void make_gradient(Index block, const Threads& inside) {
    const Index begin = blocks_.begin(block) * unit_.outputs;
    if (norm_.rows)
      norm_input_gradient(gradient_ + begin, unit_.raw + begin, norm_, coefficients_, blocks_.size(block),
                          behind_.data() + block % slots_ * blocks_.step * unit_.outputs, inside);
    made_[block].store(true, std::memory_order_release);
  }

  void to_input(Index block) {
    const Index depth = unit_.depth(), begin = blocks_.begin(block) * depth, rows = blocks_.size(block);
    way_.products({gradient(block), unit_.outputs}, {unit_.weight, depth}, rows, depth, unit_.outputs, false,
                  next_ + begin);
    if (sums_wanted_)
      add_gradients(sums_, blocks_.group(block), next_ + begin, way_.read.raw + begin, way_.read.norm, rows, Threads());
  }

  void sum(Index block) {
    const Index outputs = unit_.outputs, depth = unit_.depth(), begin = blocks_.begin(block), rows = blocks_.size(block);
    const T* at_output = gradient(block);
    if (unit_.weight_gradient)
      way_.products({at_output, outputs, true}, {way_.block_of(block, scratch_, Threads()), depth}, outputs, depth, rows,
                    block > 0, unit_.weight_gradient);
    for (Index c = 0; c < Index(of_bias_.size()); ++c)
      for (Index row = 0; row < rows; ++row) of_bias_[c] += double(at_output[row * outputs + c]);
    if (!next_ || !windowed_) return;
    way_.products({at_output, outputs}, {unit_.weight, depth}, rows, depth, outputs, false, at_windows_.data());
    add_windows(unit_, at_windows_.data(), begin, begin + rows, next_);  // windows of neighboring blocks overlap
  }

  const Multiply<T>& way_;
  const Unit<T>& unit_;
  const PixelBlocks& blocks_;
  const T* gradient_;
  const Norm<T> norm_;
  const T* coefficients_;
  T* next_;
  const bool windowed_, sums_wanted_;
  const Index slots_;
  Room<T> behind_, at_windows_, scratch_;
  std::vector<double> of_bias_;
  GroupSums<T> sums_;
  std::unique_ptr<std::atomic<bool>[]> made_;  // whose gradient at the output is made; then, which are past their own part
  std::atomic<bool>* left_;
  std::atomic<Index> begun_{0}, summed_{0};  // blocks whose own part has begun, and whose part in turn is over
  std::atomic<bool> summing_{false};
};

}  // namespace fairtrial
