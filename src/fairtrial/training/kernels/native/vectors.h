// Vectors of channels, and work divided between threads.
//
// Every array is NHWC: the channels of a pixel lie side by side. A "slab" is as many neighboring channels as a vector
// register holds; kernels go through the channels slab by slab.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__AVX512F__)
#define FAIRTRIAL_VECTOR_BYTES 64
#elif defined(__AVX__)
#define FAIRTRIAL_VECTOR_BYTES 32
#else
#define FAIRTRIAL_VECTOR_BYTES 16
#endif

namespace fairtrial {

using Index = std::int64_t;

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

// Calls body(Slab, first channel) for each slab: whole registers, then at most one half, then single channels.
template <class T, class Body>
inline void each_slab(Index channels, Body body) {
  constexpr int whole = FAIRTRIAL_VECTOR_BYTES / sizeof(T), half = whole / 2;
  Index channel = 0;
  for (; channel + whole <= channels; channel += whole) body(Slab<T, whole>{}, channel);
  if (channel + half <= channels) {
    body(Slab<T, half>{}, channel);
    channel += half;
  }
  for (; channel < channels; ++channel) body(Slab<T, 1>{}, channel);
}

// Calls body(part, begin, end) for `parts` nearly equal parts of `items`, a thread each. The division depends on the
// two numbers alone, so that sums over parts, taken in order, are the same in every run.
template <class Body>
inline void each_part(Index items, int parts, Body body) {
  if (parts == 1) return body(0, Index{0}, items);
#pragma omp parallel for num_threads(parts) schedule(static, 1)
  for (int part = 0; part < parts; ++part) body(part, items * part / parts, items * (part + 1) / parts);
}

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
