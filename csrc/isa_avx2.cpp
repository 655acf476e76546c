#include "kernels.h"

#define KOGATA_TABLE kernels_avx2
#define KOGATA_ISA_NAME "avx2"
#include "vec_avx2.inl"
#include "table.inl"
