// Tables for digits to the base 3.
#pragma once

#include <cstdint>

namespace kogata {
namespace {

// A number below 81 -> its four digits, two bits each from the lowest.
alignas(64) [[maybe_unused]] constexpr uint8_t kFourDigits[128] = {
    0, 1, 2, 4, 5, 6, 8, 9, 10, 16, 17, 18, 20, 21, 22, 24,
    25, 26, 32, 33, 34, 36, 37, 38, 40, 41, 42, 64, 65, 66, 68, 69,
    70, 72, 73, 74, 80, 81, 82, 84, 85, 86, 88, 89, 90, 96, 97, 98,
    100, 101, 102, 104, 105, 106, 128, 129, 130, 132, 133, 134, 136, 137, 138, 144,
    145, 146, 148, 149, 150, 152, 153, 154, 160, 161, 162, 164, 165, 166, 168, 169,
    170, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
};

// c * D for a digit c and D = 3, 9 or 27, its lowest four bits -> c.
alignas(16) [[maybe_unused]] constexpr uint8_t kDigitOf[16] = {0, 0, 2, 1, 0, 0, 2, 0, 0, 1, 0, 1, 0, 0, 0, 0};

}  // namespace
}  // namespace kogata
