// The functions that Python calls. Compiled once for float and once for double: FAIRTRIAL_REAL says which.
//
// Arrays are dense and NHWC. A null pointer stands for what is absent. Activations are 0 for none, 1 for ReLU, 2 for
// ReLU6. `gemm` is BLAS's, by its Fortran interface, or null. `whole` says that it uses threads of its own, and gets
// each product whole. `threads` are the threads of everything else, at least 1: their number changes no bit.

#include "chain.h"

using Real = FAIRTRIAL_REAL;
using Unit = fairtrial::Unit<Real>;
using Products = fairtrial::Products<Real>;
using fairtrial::Index;
using fairtrial::Threads;

// Of this library alone: another one in the process may be of another version.
static std::atomic<fairtrial::Pool*> pool{nullptr};

// OpenMP's omp_set_num_threads, as BLAS has it, or null.
static std::atomic<void (*)(int)> set_openmp_threads{nullptr};

// BLAS asks OpenMP how many threads it may use in the calling thread, and how it computes a product depends on the
// answer: it must be the same in all threads.
static void begin_helper() {
  if (void (*set)(int) = set_openmp_threads.load()) set(1);
}

extern "C" {

int vector_bytes() { return FAIRTRIAL_VECTOR_BYTES; }

// Lets Python check that both sides have the same layout of a unit.
Index unit_bytes() { return sizeof(Unit); }

// Says where BLAS's OpenMP is; to be called before any chain is computed.
void use_openmp(void* set_threads) { set_openmp_threads.store(reinterpret_cast<void (*)(int)>(set_threads)); }

void chain_forward(Unit* units, Index count, const Real* input, Real* output, void* gemm, int whole, int threads) {
  const Products products{reinterpret_cast<fairtrial::Gemm<Real>>(gemm)};
  fairtrial::Chain<Real>(units, count, input, products, whole != 0,
                                Threads(pool, threads, begin_helper))
      .forward(output);
}

void chain_backward(Unit* units, Index count, const Real* input, const Real* gradient, Real* const* buffers,
                    Real* input_gradient, void* gemm, int whole, int threads) {
  const Products products{reinterpret_cast<fairtrial::Gemm<Real>>(gemm)};
  fairtrial::Chain<Real>(units, count, input, products, whole != 0,
                                Threads(pool, threads, begin_helper))
      .backward(gradient, buffers, input_gradient);
}

}  // extern "C"
