#include "kernels.h"

#define KOGATA_TABLE kernels_avxvnni
#define KOGATA_ISA_NAME "avxvnni"
#include "vec_avx2.inl"
#include "table.inl"
