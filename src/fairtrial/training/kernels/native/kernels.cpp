// The functions that Python calls. Compiled once for float and once for double: FAIRTRIAL_REAL says which.
//
// Arrays are dense and NHWC. `threads` is at least 1. A null pointer stands for what is absent. Activations are 0 for
// none, 1 for ReLU, 2 for ReLU6. `gemm` is BLAS's, by its Fortran interface, or null.

#include "chain.h"

using Real = FAIRTRIAL_REAL;
using Unit = fairtrial::Unit<Real>;
using Products = fairtrial::Products<Real>;
using fairtrial::Index;

extern "C" {

int vector_bytes() { return FAIRTRIAL_VECTOR_BYTES; }

// Lets Python check that both sides have the same layout of a unit.
Index unit_bytes() { return sizeof(Unit); }

void chain_forward(Unit* units, Index count, const Real* input, Real* output, void* gemm, int threads) {
  const Products products{reinterpret_cast<fairtrial::Gemm<Real>>(gemm)};
  fairtrial::Chain<Real>(units, count, input, products, threads).forward(output);
}

void chain_backward(Unit* units, Index count, const Real* input, const Real* gradient, Real* const* buffers,
                    Real* input_gradient, void* gemm, int threads) {
  const Products products{reinterpret_cast<fairtrial::Gemm<Real>>(gemm)};
  fairtrial::Chain<Real>(units, count, input, products, threads).backward(gradient, buffers, input_gradient);
}

}  // extern "C"
