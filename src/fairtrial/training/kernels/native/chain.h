// A chain of convolutions and batch norms, forward and backward.
//
// Between two units a feature map stays unfinished: the batch norm and the activation behind a convolution are worked
// in where the next unit reads the map.
#pragma once

#include "multiply.h"

namespace fairtrial {

template <class T>
class Chain {
 public:
  // With `whole`, BLAS shares each product out between threads of its own, and products are not divided into blocks.
  Chain(Unit<T>* units, Index count, const T* input, Products<T> products, bool whole, const Threads& threads)
      : units_(units), count_(count), input_(input), products_(products), whole_(whole), threads_(threads) {}

  // Fills in every unit's map and rows, and the output if it is not the last unit's map itself.
  void forward(T* output) {
    for (Index u = 0; u < count_; ++u) {
      Unit<T>& unit = units_[u];
      Read<T> read = read_of(u);
      std::vector<double> moments(2 * unit.outputs);
      double* wanted = unit.norm_weight && unit.from_batch ? moments.data() : nullptr;
      Room<T> whole_map;
      if (unit.kind != kDepthwise) read = finished_if_needed(unit, read, whole_map);
      if (unit.kind == kDepthwise) {
        depthwise_forward(read.raw, read.norm, unit.weight, Norm<T>(nullptr, unit.outputs, 0), unit.shape, unit.raw,
                          wanted, threads_);
      } else if (unit.kind == kNone) {
        if (wanted) batch_moments(unit.raw, unit.pixels(), unit.outputs, wanted);
      } else {
        Multiply<T>(unit, read, products_, whole_, threads_).forward(wanted);
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
  Read<T> finished_if_needed(const Unit<T>& unit, const Read<T>& read, Room<T>& whole_map) const {
    if (unit.kind == kPointwise || read.finished()) return read;
    T* to = unit.raw;
    if (unit.kind == kWindows) {
      whole_map.make(unit.in_pixels() * unit.shape.channels);
      to = whole_map.data();
    }
    norm_forward(read.raw, read.norm, unit.in_pixels(), to, threads_);
    return {to, Norm<T>(nullptr, unit.shape.channels, 0)};
  }

  void batch_moments(const T* values, Index rows, Index channels, double* moments) const {
    Moments<T> counted(true, GroupSums<T>::groups(rows), channels);
    counted.add(0, values, rows, threads_);
    counted.finish(rows, moments, moments + channels);
  }

  std::vector<double> norm_sums(const T* gradient, const Unit<T>& unit, const Norm<T>& norm) const {
    GroupSums<T> sums(GroupSums<T>::groups(unit.pixels()), unit.outputs);
    add_gradients(sums, 0, gradient, unit.raw, norm, unit.pixels(), threads_);
    return sums.total();
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
      Room<T> whole_map;
      const Multiply<T> multiply(unit, finished_if_needed(unit, read, whole_map), products_, whole_, threads_);
      way.sums = MultiplyBack<T>(multiply, way.gradient, norm, coefficients, next).run();
    }
  }

  Unit<T>* units_;
  Index count_;
  const T* input_;
  Products<T> products_;
  bool whole_;
  const Threads& threads_;
};

}  // namespace fairtrial
