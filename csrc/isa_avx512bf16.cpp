#include "kernels.h"

#define KOGATA_TABLE kernels_avx512bf16
#define KOGATA_ISA_NAME "avx512bf16"
#include "vec_avx512.inl"
#include "table.inl"
