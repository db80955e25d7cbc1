// Statuses from parts that are put together as absl::StrCat would, std::string_view included: Debian's absl has a
// string_view of its own, to which StrCat does not convert.
#pragma once

#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace pkv {

template <typename T>
decltype(auto) status_part(const T& part) {
  if constexpr (std::is_same_v<T, std::string_view>) {
    return absl::string_view(part.data(), part.size());
  } else {
    return (part);
  }
}

template <typename... Parts>
absl::Status invalid_argument(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(status_part(parts)...));
}

template <typename... Parts>
absl::Status unimplemented(const Parts&... parts) {
  return absl::UnimplementedError(absl::StrCat(status_part(parts)...));
}

}  // namespace pkv
