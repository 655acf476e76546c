#include "dispatch.h"

#include <atomic>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace kogata {
namespace {

struct Isa {
  const Kernels* table;
  bool supported;
};

#if defined(__x86_64__)
struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool bit(unsigned value, int n) { return (value >> n) & 1u; }

// The register state that the operating system saves on a context switch. Without it an instruction that cpuid
// advertises would still trap.
unsigned saved_state() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}
#endif

std::vector<Isa> all_isas() {
  std::vector<Isa> isas{{&kernels_scalar, true}};
#if defined(__x86_64__)
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0), seven_one = cpuid(7, 1);
  const bool osxsave = bit(one.ecx, 27);
  const unsigned state = osxsave ? saved_state() : 0;
  const bool ymm = (state & 0x06) == 0x06, zmm = (state & 0xe6) == 0xe6;
  const bool avx2 = ymm && bit(one.ecx, 28) && bit(one.ecx, 12) && bit(one.ecx, 29) && bit(seven.ebx, 5);
  const bool avx512 = avx2 && zmm && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) && bit(seven.ebx, 31);
  const bool avx512vnni = avx512 && bit(seven.ecx, 11);
  isas.push_back({&kernels_avx2, avx2});
  isas.push_back({&kernels_avxvnni, avx2 && bit(seven_one.eax, 4)});
  isas.push_back({&kernels_avx512vnni, avx512vnni});
  isas.push_back({&kernels_avx512bf16, avx512vnni && bit(seven.ecx, 1) && bit(seven.ecx, 8) && bit(seven_one.eax, 5)});
#elif defined(__aarch64__)
  isas.push_back({&kernels_neon, true});
#if defined(__linux__)
  isas.push_back({&kernels_neondot, (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0});
#else
  isas.push_back({&kernels_neondot, true});  // every Apple processor with this instruction set has dot products
#endif
#endif
  return isas;
}

std::atomic<const Kernels*> g_kernels{nullptr};

}  // namespace

std::vector<std::string> built_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : all_isas()) names.push_back(isa.table->name);
  return names;
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : all_isas()) {
    if (isa.supported) names.push_back(isa.table->name);
  }
  return names;
}

void select_isa(const std::string& name) {
  for (const Isa& isa : all_isas()) {
    if (isa.supported && name == isa.table->name) {
      g_kernels.store(isa.table, std::memory_order_release);
      return;
    }
  }
  throw std::invalid_argument("this machine cannot run the instruction set '" + name + "'");
}

const Kernels& kernels() {
  const Kernels* table = g_kernels.load(std::memory_order_acquire);
  if (table == nullptr) {
    select_isa(supported_isas().back());
    table = g_kernels.load(std::memory_order_acquire);
  }
  return *table;
}

}  // namespace kogata
