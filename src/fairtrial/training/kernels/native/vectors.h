// Vectors of channels, and memory for them.
//
// Every array is NHWC: the channels of a pixel lie side by side. A "slab" is as many neighboring channels as a vector
// register holds; kernels go through the channels slab by slab.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include "threads.h"

#if defined(__AVX512F__)
#define FAIRTRIAL_VECTOR_BYTES 64
#elif defined(__AVX__)
#define FAIRTRIAL_VECTOR_BYTES 32
#else
#define FAIRTRIAL_VECTOR_BYTES 16
#endif

namespace fairtrial {

// N neighboring channels of type T.
template <class T, int N>
struct Slab {
  typedef T Vector __attribute__((vector_size(N * sizeof(T))));
  static constexpr int width = N;

  static Vector load(const T* from) {
    Vector value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  static void store(T* to, Vector value) { std::memcpy(to, &value, sizeof value); }
  static Vector all(T value) { return Vector{} + value; }
};

// Neighboring channels, or all of them.
struct Channels {
  Index begin, end;
};

// Numbers in a cache line. Threads divide channels by whole lines, so that no two write into the same, and that the
// slabs are those of an undivided pass.
template <class T>
constexpr Index kLine = 64 / sizeof(T);

template <class T>
constexpr Index whole_lines(Index numbers) {
  return (numbers + kLine<T> - 1) / kLine<T> * kLine<T>;
}

// Calls body(Slab, first channel) for each slab: whole registers, then at most one half, then single channels.
template <class T, class Body>
inline void each_slab(Channels channels, Body body) {
  constexpr int whole = FAIRTRIAL_VECTOR_BYTES / sizeof(T), half = whole / 2;
  Index channel = channels.begin;
  for (; channel + whole <= channels.end; channel += whole) body(Slab<T, whole>{}, channel);
  if (channel + half <= channels.end) {
    body(Slab<T, half>{}, channel);
    channel += half;
  }
  for (; channel < channels.end; ++channel) body(Slab<T, 1>{}, channel);
}
template <class T, class Body>
inline void each_slab(Index channels, Body body) {
  each_slab<T>(Channels{0, channels}, body);
}

// Calls task(Channels) for all channels, divided between threads.
template <class T, class Task>
void each_channels(const Threads& threads, Index channels, const Task& task) {
  const Index lines = (channels + kLine<T> - 1) / kLine<T>;
  const Index parts = threads.count() == 1 ? 1 : std::min<Index>(lines, 2 * threads.count());
  threads.each(parts, [&](Index part) {
    const Index begin = lines * part / parts * kLine<T>, end = lines * (part + 1) / parts * kLine<T>;
    task(Channels{begin, std::min(end, channels)});
  });
}

// Room for numbers that are written before they are read: unlike a vector, it is not filled with zeros first. It begins
// at a cache line.
template <class T>
class Room {
 public:
  explicit Room(Index numbers = 0) { make(numbers); }

  void make(Index numbers) {
    if (numbers <= size_) return;
    begin_.reset(static_cast<T*>(::operator new(sizeof(T) * std::size_t(numbers), kAligned)));
    size_ = numbers;
  }
  T* data() const { return begin_.get(); }

 private:
  static constexpr std::align_val_t kAligned{64};
  struct Free {
    void operator()(T* numbers) const { ::operator delete(numbers, kAligned); }
  };

  Index size_ = 0;
  std::unique_ptr<T, Free> begin_;
};

// The same, filled with zeros.
template <class T>
struct Zeros : Room<T> {
  explicit Zeros(Index numbers) : Room<T>(numbers) { std::fill(this->data(), this->data() + numbers, T(0)); }
};

// The activation, as the interval that values are cut to. Cutting passes NaN, and so does the gradient at a NaN.
template <class T>
struct Cut {
  T low, high;

  // kind 0 is none, 1 is ReLU, 2 is ReLU6.
  explicit Cut(int kind)
      : low(kind ? T(0) : -std::numeric_limits<T>::infinity()),
        high(kind == 2 ? T(6) : std::numeric_limits<T>::infinity()) {}

  template <class V>
  V operator()(V value) const {
    const V lowest = V{} + low, highest = V{} + high;
    value = value < lowest ? lowest : value;
    return value > highest ? highest : value;
  }
  // The gradient where the value, or what it was cut to, lies inside; else zero.
  template <class V>
  V gradient(V value, V gradient) const {
    const V lowest = V{} + low, highest = V{} + high;
    gradient = value <= lowest ? V{} : gradient;
    return value >= highest ? V{} : gradient;
  }
};

}  // namespace fairtrial
