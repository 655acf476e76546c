#include "kernels.h"

#define KOGATA_TABLE kernels_neondot
#define KOGATA_ISA_NAME "neondot"
#include "vec_neon.inl"
#include "table.inl"
