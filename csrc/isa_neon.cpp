#include "kernels.h"

#define KOGATA_TABLE kernels_neon
#define KOGATA_ISA_NAME "neon"
#include "vec_neon.inl"
#include "table.inl"
