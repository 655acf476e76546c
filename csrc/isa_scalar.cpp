#include "kernels.h"

#define KOGATA_TABLE kernels_scalar
#define KOGATA_ISA_NAME "scalar"
#include "vec_scalar.inl"
#include "table.inl"
