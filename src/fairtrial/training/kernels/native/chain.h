// A chain of convolutions and batch norms, forward and backward.
//
// Between two units a feature map stays unfinished: the batch norm and the activation behind a convolution are worked
// in where the next unit reads the map. Matrix products go block by block of pixels, so that what comes before and
// after a product (normalizing, statistics, gradients of norms) finds its numbers in the processor's cache.
#pragma once

#include <memory>

#include "depthwise.h"
#include "product.h"

namespace fairtrial {

// Numbers that a block's inputs and outputs may have together: half a megabyte of floats, well within an L2 cache.
constexpr Index kBlockNumbers = 128 * 1024;
// A block has at least this many pixels; a product of fewer is slow.
constexpr Index kLeastBlock = 64;

enum Kind : Index { kNone, kPointwise, kDepthwise, kWindows };

// A convolution and the batch norm behind it; one of the two may be missing. Python fills this in, field by field.
template <class T>
struct Unit {
  Index kind;
  Shape shape;     // of a norm alone: its input's, with the same output
  Index outputs;   // channels
  Index size;      // of the kernel of kWindows
  Index from_batch, activation;
  double eps, momentum, correction;
  // kPointwise (outputs, channels), kDepthwise (channels, 9), kWindows (outputs, y, x, channels)
  const T *weight, *bias;
  const T *norm_weight, *norm_bias;  // both null without a norm
  T *running_mean, *running_var;
  Index* batches_tracked;  // or null
  T *raw, *rows;           // what the convolution makes (pixels, outputs), and the norm's rows; kept for the way back
  T *weight_gradient, *bias_gradient, *norm_weight_gradient, *norm_bias_gradient;  // null where not asked for

  Index pixels() const { return shape.images * shape.out_pixels(); }
  Index in_pixels() const { return shape.images * shape.in_pixels(); }
  // Numbers that a product reads for each pixel.
  Index depth() const { return kind == kWindows ? size * size * shape.channels : shape.channels; }
  Norm<T> norm(bool cut_already = false) const {
    return Norm<T>(norm_weight ? rows : nullptr, outputs, cut_already ? 0 : int(activation));
  }
};

// A map as the next unit reads it: with a norm and an activation still to come, or finished.
template <class T>
struct Read {
  const T* raw;
  Norm<T> norm;

  bool finished() const { return !norm.rows; }
};

template <class T>
void norm_forward(const T* input, const Norm<T>& norm, Index rows, T* output, int threads) {
  each_place(rows, norm.channels, output, threads, [&](auto slab, Index c) {
    using S = decltype(slab);
    return [input, finish = SlabNorm<T, S>(norm, c)](Index place) { return finish(S::load(input + place)); };
  });
}

template <class T>
void norm_input_gradient(const T* gradient, const T* input, const Norm<T>& norm, const T* coefficients, Index rows,
                         T* output, int threads) {
  each_place(rows, norm.channels, output, threads, [&](auto slab, Index c) {
    using S = decltype(slab);
    return [=, back = SlabNormBack<T, S>(norm, coefficients, c)](Index place) {
      return back(S::load(input + place), S::load(gradient + place));
    };
  });
}

// Room for numbers that are written before they are read: unlike a vector, it is not filled with zeros first.
template <class T>
class Room {
 public:
  explicit Room(Index numbers = 0) { make(numbers); }

  void make(Index numbers) {
    if (numbers > size_) begin_.reset(new T[size_ = numbers]);
  }
  T* data() const { return begin_.get(); }

 private:
  Index size_ = 0;
  std::unique_ptr<T[]> begin_;
};

// Sums over pixels that come block by block; a part for each thread.
template <class T, class Part>
class ByParts {
 public:
  ByParts(bool wanted, Index channels, int threads) : parts_(wanted ? threads : 0, Part(channels)) {}

  bool wanted() const { return !parts_.empty(); }
  const std::vector<Part>& parts() const { return parts_; }
  // Calls add(part, begin, end).
  template <class Add>
  void block(Index rows, Add add) {
    if (!wanted()) return;
    each_part(rows, int(parts_.size()), [&](int part, Index begin, Index end) { add(parts_[part], begin, end); });
  }

 private:
  std::vector<Part> parts_;
};

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

// Turns a mean and a variance into a norm's rows.
template <class T>
void set_rows(const Unit<T>& unit, const double* mean, const double* variance) {
  const Index channels = unit.outputs;
  T* __restrict norm = unit.rows;
  for (Index c = 0; c < channels; ++c) {
    const double inverse_deviation = 1 / std::sqrt(variance[c] + unit.eps);
    const double scale = double(unit.norm_weight[c]) * inverse_deviation;
    norm[c] = T(mean[c]);
    norm[channels + c] = T(scale);
    // What T cannot hold of the mean goes into the shift.
    norm[2 * channels + c] = T(double(unit.norm_bias[c]) + (double(T(mean[c])) - mean[c]) * scale);
    norm[3 * channels + c] = T(inverse_deviation);
  }
}

// Makes a norm's rows from a batch's moments and moves its running statistics, or from these statistics.
template <class T>
void settle_norm(const Unit<T>& unit, double* moments) {
  if (!unit.norm_weight) return;
  const Index channels = unit.outputs;
  if (!unit.from_batch) {
    const std::vector<double> mean(unit.running_mean, unit.running_mean + channels);
    const std::vector<double> variance(unit.running_var, unit.running_var + channels);
    return set_rows(unit, mean.data(), variance.data());
  }
  double* variance = moments + channels;
  for (Index c = 0; c < channels; ++c) variance[c] /= double(unit.pixels());
  set_rows(unit, moments, variance);
  for (Index c = 0; c < channels; ++c) {
    const double old_mean = double(unit.running_mean[c]), old_variance = double(unit.running_var[c]);
    unit.running_mean[c] = T((1 - unit.momentum) * old_mean + unit.momentum * moments[c]);
    unit.running_var[c] = T((1 - unit.momentum) * old_variance + unit.momentum * variance[c] * unit.correction);
  }
  if (unit.batches_tracked) ++*unit.batches_tracked;
}

// Turns a norm's sums into the gradients of its weight and bias, and into what `SlabNormBack` takes off.
template <class T>
void set_coefficients(const Unit<T>& unit, const double* sums, T* __restrict coefficients) {
  const Index channels = unit.outputs;
  const double share = unit.from_batch ? 1 / double(unit.pixels()) : 0;
  for (Index c = 0; c < channels; ++c) {
    const double inverse_deviation = double(unit.rows[3 * channels + c]);
    const double product = sums[channels + c] * inverse_deviation;
    if (unit.norm_weight_gradient) unit.norm_weight_gradient[c] = T(product);
    if (unit.norm_bias_gradient) unit.norm_bias_gradient[c] = T(sums[c]);
    coefficients[c] = T(sums[c] * share);
    coefficients[channels + c] = T(product * inverse_deviation * share);
  }
}

template <class T>
class Chain {
 public:
  Chain(Unit<T>* units, Index count, const T* input, Products<T> products, int threads)
      : units_(units), count_(count), input_(input), products_(products), threads_(threads) {}

  // Fills in every unit's map and rows, and the output if it is not the last unit's map itself.
  void forward(T* output) {
    for (Index u = 0; u < count_; ++u) {
      Unit<T>& unit = units_[u];
      Read<T> read = read_of(u);
      std::vector<double> moments(2 * unit.outputs);
      double* wanted = unit.norm_weight && unit.from_batch ? moments.data() : nullptr;
      Room<T> whole;
      if (unit.kind != kDepthwise) read = finished_if_needed(unit, read, whole);
      if (unit.kind == kDepthwise) {
        depthwise_forward(read.raw, read.norm, unit.weight, Norm<T>(nullptr, unit.outputs, 0), unit.shape, unit.raw,
                          wanted, threads_);
      } else if (unit.kind == kNone) {
        if (wanted) batch_moments(unit.raw, unit.pixels(), unit.outputs, wanted);
      } else {
        multiply(unit, read, wanted);
      }
      settle_norm(unit, moments.data());
    }
    const Unit<T>& last = units_[count_ - 1];
    if (last.norm_weight) norm_forward<T>(last.raw, last.norm(), last.pixels(), output, threads_);
  }

  // Fills in the gradients of all parameters that are asked for, and the input's unless it is null. `buffers` are two,
  // each with room for the largest map between two units.
  void backward(const T* gradient, T* const* buffers, T* input_gradient) {
    Way way{gradient, false, {}};
    for (Index u = count_ - 1; u >= 0; --u) {
      const Unit<T>& unit = units_[u];
      T* next = u == 0 ? input_gradient : buffers[way.gradient == buffers[0]];
      const bool writes_anyway = unit.kind == kDepthwise || unit.kind == kNone;
      if (!next && writes_anyway) next = buffers[way.gradient == buffers[0]];
      const Norm<T> norm = unit.norm(way.cut);
      std::vector<T> coefficients(unit.norm_weight ? 2 * unit.outputs : 0);
      if (unit.norm_weight) {
        if (way.sums.empty()) way.sums = norm_sums(way.gradient, unit, norm);
        set_coefficients(unit, way.sums.data(), coefficients.data());
      }
      way.sums.clear();
      way.cut = false;
      back_through(unit, read_of(u), norm, coefficients.data(), way, next);
      way.gradient = next;
    }
  }

 private:
  // The gradient on its way: at the output of what comes next; whether it is behind the cut of that norm's activation
  // already; and that norm's sums, if they are known.
  struct Way {
    const T* gradient;
    bool cut;
    std::vector<double> sums;
  };

  Read<T> read_of(Index u) const {
    if (u == 0) return {input_, Norm<T>(nullptr, units_[0].shape.channels, 0)};
    return {units_[u - 1].raw, units_[u - 1].norm()};
  }

  // Products read finished pixels block by block; windows and norms need the whole map.
  Read<T> finished_if_needed(const Unit<T>& unit, const Read<T>& read, Room<T>& whole) const {
    if (unit.kind == kPointwise || read.finished()) return read;
    T* to = unit.raw;
    if (unit.kind == kWindows) {
      whole.make(unit.in_pixels() * unit.shape.channels);
      to = whole.data();
    }
    norm_forward(read.raw, read.norm, unit.in_pixels(), to, threads_);
    return {to, Norm<T>(nullptr, unit.shape.channels, 0)};
  }

  void batch_moments(const T* values, Index rows, Index channels, double* moments) const {
    ByParts<T, Moments<T>> parts(true, channels, threads_);
    parts.block(rows, [&](auto& part, Index begin, Index end) { part.add(values + begin * channels, end - begin); });
    Moments<T>::merge(parts.parts(), channels, moments, moments + channels);
  }

  std::vector<double> norm_sums(const T* gradient, const Unit<T>& unit, const Norm<T>& norm) const {
    const Index channels = unit.outputs;
    ByParts<T, Sums<T>> parts(true, channels, threads_);
    parts.block(unit.pixels(), [&](auto& part, Index begin, Index end) {
      add_gradients(part, gradient + begin * channels, unit.raw + begin * channels, norm, end - begin);
    });
    std::vector<double> sums(2 * channels);
    sum_parts(parts.parts(), channels, sums.data());
    return sums;
  }

  // Pixels of a block. Several threads share each product instead of the blocks.
  Index block(const Unit<T>& unit) const {
    const Index all = unit.pixels();
    const Index most = std::max(kLeastBlock, kBlockNumbers / (unit.depth() + unit.outputs));
    if (threads_ > 1 || most >= all) return all;
    const Index blocks = (all + most - 1) / most;
    return ((all + blocks - 1) / blocks + 15) / 16 * 16;
  }

  // A block of what a product reads: where it lies, or brought into `scratch`.
  const T* block_of(const Unit<T>& unit, const Read<T>& read, Index begin, Index end, Room<T>& scratch) const {
    if (unit.kind == kPointwise && read.finished()) return read.raw + begin * unit.depth();
    scratch.make(block(unit) * unit.depth());
    if (unit.kind == kWindows)
      windows(unit, read.raw, begin, end, scratch.data());
    else
      norm_forward(read.raw + begin * unit.depth(), read.norm, end - begin, scratch.data(), threads_);
    return scratch.data();
  }

  void multiply(const Unit<T>& unit, const Read<T>& read, double* moments) const {
    const Index outputs = unit.outputs, depth = unit.depth(), all = unit.pixels(), step = block(unit);
    ByParts<T, Moments<T>> parts(moments, outputs, threads_);
    Room<T> scratch;
    for (Index begin = 0; begin < all; begin += step) {
      const Index end = std::min(begin + step, all);
      T* made = unit.raw + begin * outputs;
      if (unit.bias)
        for (Index row = begin; row < end; ++row) std::copy(unit.bias, unit.bias + outputs, unit.raw + row * outputs);
      products_({block_of(unit, read, begin, end, scratch), depth}, {unit.weight, depth, true}, end - begin, outputs,
                depth, unit.bias != nullptr, made);
      parts.block(end - begin, [&](auto& part, Index first, Index last) {
        part.add(made + first * outputs, last - first);
      });
    }
    if (moments) Moments<T>::merge(parts.parts(), outputs, moments, moments + outputs);
  }

  void back_through(const Unit<T>& unit, Read<T> read, const Norm<T>& norm, const T* coefficients, Way& way,
                    T* next) const {
    if (unit.kind == kNone) {
      norm_input_gradient<T>(way.gradient, unit.raw, norm, coefficients, unit.pixels(), next, threads_);
    } else if (unit.kind == kDepthwise) {
      Room<T> unwanted(unit.weight_gradient ? 0 : 9 * unit.outputs);
      if (!read.finished()) way.sums.resize(2 * unit.shape.channels);
      depthwise_backward(way.gradient, NormBehind<T>{norm, coefficients, unit.raw}, read.raw, read.norm, unit.weight,
                         unit.shape, next, unit.weight_gradient ? unit.weight_gradient : unwanted.data(),
                         read.finished() ? nullptr : way.sums.data(), threads_);
      way.cut = !read.finished();
    } else {
      Room<T> whole;
      back_through_product(unit, finished_if_needed(unit, read, whole), norm, coefficients, way, next);
    }
  }

  void back_through_product(const Unit<T>& unit, const Read<T>& read, const Norm<T>& norm, const T* coefficients,
                            Way& way, T* next) const {
    const Index outputs = unit.outputs, depth = unit.depth(), all = unit.pixels(), step = block(unit);
    const bool windowed = unit.kind == kWindows;
    ByParts<T, Sums<T>> parts(next && !read.finished(), depth, threads_);
    Room<T> scratch, behind(norm.rows ? step * outputs : 0), at_windows(next && windowed ? step * depth : 0);
    std::vector<double> of_bias(unit.bias_gradient ? outputs : 0);
    if (next && windowed) std::fill(next, next + unit.in_pixels() * unit.shape.channels, T(0));
    for (Index begin = 0; begin < all; begin += step) {
      const Index end = std::min(begin + step, all), count = end - begin;
      const T* gradient = way.gradient + begin * outputs;
      if (norm.rows) {
        norm_input_gradient(gradient, unit.raw + begin * outputs, norm, coefficients, count, behind.data(), threads_);
        gradient = behind.data();
      }
      if (unit.weight_gradient)
        products_({gradient, outputs, true}, {block_of(unit, read, begin, end, scratch), depth}, outputs, depth, count,
                  begin > 0, unit.weight_gradient);
      for (Index c = 0; c < Index(of_bias.size()); ++c)
        for (Index row = 0; row < count; ++row) of_bias[c] += double(gradient[row * outputs + c]);
      if (!next) continue;
      T* to = windowed ? at_windows.data() : next + begin * depth;
      products_({gradient, outputs}, {unit.weight, depth}, count, depth, outputs, false, to);
      if (windowed) add_windows(unit, to, begin, end, next);
      parts.block(count, [&](auto& part, Index first, Index last) {
        add_gradients(part, to + first * depth, read.raw + (begin + first) * depth, read.norm, last - first);
      });
    }
    std::copy(of_bias.begin(), of_bias.end(), unit.bias_gradient);
    if (!parts.wanted()) return;
    way.sums.resize(2 * depth);
    sum_parts(parts.parts(), depth, way.sums.data());
  }

  Unit<T>* units_;
  Index count_;
  const T* input_;
  Products<T> products_;
  int threads_;
};

}  // namespace fairtrial
