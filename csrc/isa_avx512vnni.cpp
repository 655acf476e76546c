#include "kernels.h"

#define KOGATA_TABLE kernels_avx512vnni
#define KOGATA_ISA_NAME "avx512vnni"
#include "vec_avx512.inl"
#include "table.inl"
