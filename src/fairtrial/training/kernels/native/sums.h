// Two sums a channel over pixels, and what they are for: a batch's mean and variance.
//
// Numbers are added in T for some pixels, a "group", and groups in double, in their order.
#pragma once

#include "vectors.h"

namespace fairtrial {

// Pixels that a pass reads together: a channel's coefficients are loaded once for all of them.
constexpr Index kRowsTogether = 8;
// Pixels of a group.
constexpr Index kRowsInT = 128;
// Numbers that a thread must have to work on, or it costs more to call it: some microseconds' worth.
constexpr Index kLeastNumbers = 8 * 1024;

// Sums of groups of pixels that lie one after the other. A group is summed on its own, so groups may come in any order
// and from any thread.
template <class T>
class GroupSums {
 public:
  GroupSums(Index groups, Index channels)
      : groups_(groups), channels_(channels), row_(whole_lines<T>(channels)), few_(groups * 2 * row_) {}

  static Index groups(Index rows) { return (rows + kRowsInT - 1) / kRowsInT; }

  // For each pixel and slab adds what prepare(Slab, channel)(place, first&, second&) adds. The first pixel begins a
  // group, of this number.
  template <class Prepare>
  void add(Index group, Index rows, const Threads& threads, const Prepare& prepare) {
    const Index least = std::max<Index>(1, kLeastNumbers / (kRowsInT * channels_));
    threads.each_range(groups(rows), least, 1, [&](Index begin, Index end) {
      for (Index number = begin; number < end; ++number)
        add_group(group + number, number * kRowsInT, std::min((number + 1) * kRowsInT, rows), prepare);
    });
  }

  // All groups together: a row of the first sums, a row of the second.
  std::vector<double> total() const {
    std::vector<double> sums(2 * channels_);
    double* __restrict to = sums.data();
    for (Index row = 0; row < 2 * groups_; ++row) {
      const T* __restrict from = few_.data() + row * row_;
      for (Index c = 0; c < channels_; ++c) to[row % 2 * channels_ + c] += from[c];
    }
    return sums;
  }

 private:
  template <class Prepare>
  void add_group(Index group, Index begin, Index end, const Prepare& prepare) {
    T *first = few_.data() + group * 2 * row_, *second = first + row_;
    std::fill(first, second + row_, T(0));
    for (Index top = begin; top < end; top += kRowsTogether) {
      const Index bottom = std::min(top + kRowsTogether, end);
      each_slab<T>(channels_, [&](auto slab, Index c) {
        using S = decltype(slab);
        const auto add_one = prepare(slab, c);
        auto one = S::load(first + c), two = S::load(second + c);
        for (Index row = top; row < bottom; ++row) add_one(row * channels_ + c, one, two);
        S::store(first + c, one);
        S::store(second + c, two);
      });
    }
  }

  Index groups_, channels_, row_;
  Room<T> few_;
};

// The mean of each channel of a few pixels. Deviations are taken from it, which keeps the digits that a sum of plain
// squares would lose (Chan, Golub & LeVeque 1983, The American Statistician 37).
template <class T>
void set_origin(const T* values, Index rows, Index channels, Channels range, T* origin) {
  const Index count = std::min<Index>(rows, 16);
  const T share = T(1) / T(count);
  for (Index row = 0; row < count; ++row)
    for (Index c = range.begin; c < range.end; ++c) origin[c] += values[row * channels + c] * share;
}

// Turns sums of deviations from an origin and of their squares, over so many pixels, into the mean and the sum of
// squared deviations from it.
template <class T>
void set_moments(const T* origin, const double* first, const double* second, Index rows, Index channels, double* mean,
                 double* squares) {
  const double count = double(rows);
  for (Index c = 0; c < channels; ++c) {
    const double offset = first[c] / count, middle = double(origin[c]) + offset;
    mean[c] = middle * count / count;  // rounded as when moments of parts were merged: old studies keep their bits
    squares[c] = second[c] - offset * first[c];
  }
}

// Moments of pixels that come in groups.
template <class T>
class Moments {
 public:
  Moments(bool wanted, Index groups, Index channels)
      : wanted_(wanted), channels_(channels), origin_(wanted ? channels : 0), sums_(wanted ? groups : 0, channels) {}

  // Adds pixels, of which the first begins a group. Other threads wait for the one that has group 0.
  void add(Index group, const T* values, Index rows, const Threads& threads) {
    if (!wanted_) return;
    if (group == 0) {
      set_origin(values, rows, channels_, {0, channels_}, origin_.data());
      begun_.store(true, std::memory_order_release);
    }
    for (Wait wait; !begun_.load(std::memory_order_acquire);) wait();
    sums_.add(group, rows, threads, [values, from = origin_.data()](auto slab, Index c) {
      using S = decltype(slab);
      return [values, middle = S::load(from + c)](Index place, auto& first, auto& second) {
        const auto deviation = S::load(values + place) - middle;
        first += deviation;
        second += deviation * deviation;
      };
    });
  }

  // Writes mean and sum of squared deviations of so many pixels, if they are wanted.
  void finish(Index rows, double* mean, double* squares) const {
    if (!wanted_) return;
    const std::vector<double> sums = sums_.total();
    set_moments(origin_.data(), sums.data(), sums.data() + channels_, rows, channels_, mean, squares);
  }

 private:
  bool wanted_;
  Index channels_;
  Zeros<T> origin_;
  GroupSums<T> sums_;
  std::atomic<bool> begun_{false};
};

// Sums of one pass over the pixels that has its own idea of groups. Threads share it, each with channels of its own.
template <class T>
class ChannelSums {
 public:
  ChannelSums(int sums, Index channels)
      : sums_(sums), channels_(channels), row_(whole_lines<T>(channels)), few_(sums * row_), all_(sums * row_) {}

  Index channels() const { return channels_; }
  T* few(int sum) const { return few_.data() + sum * row_; }
  const double* all(int sum) const { return all_.data() + sum * row_; }

  // Ends a group of these channels.
  void flush(Channels range) {
    for (int sum = 0; sum < sums_; ++sum) {
      T* __restrict from = few(sum);
      double* __restrict to = all_.data() + sum * row_;
      for (Index c = range.begin; c < range.end; ++c) {
        to[c] += from[c];
        from[c] = T(0);
      }
    }
  }

 private:
  int sums_;
  Index channels_, row_;
  Zeros<T> few_;
  Zeros<double> all_;
};

}  // namespace fairtrial
