// Which instruction sets this machine runs, and the table in force.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace kogata {

std::vector<std::string> built_isas();      // compiled into this extension
std::vector<std::string> supported_isas();  // of those, what processor and operating system run, slowest first
void select_isa(const std::string& name);   // throws std::invalid_argument for anything not in supported_isas()
const Kernels& kernels();                   // the table in force: the last of supported_isas() until one is selected

}  // namespace kogata
