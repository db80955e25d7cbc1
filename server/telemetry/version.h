// The version of this build, as CMakeLists.txt in the root has it.
#pragma once

#include <string_view>

namespace pkv {

std::string_view version();

}  // namespace pkv
