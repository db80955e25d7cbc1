// Looks through the bytes of a request before they are parsed: what it would become may be sixty times as large, and
// protobuf passes over fields that it does not know, or knows with another type.
#pragma once

#include <google/protobuf/descriptor.h>

#include <cstddef>
#include <span>

#include "absl/status/status.h"

namespace pkv {

// Texts, messages and map entries of one request: each takes up to about 100 bytes besides its own.
inline constexpr size_t kMaxValues = size_t{1} << 18;

// UNIMPLEMENTED naming the field for one that `type` and the messages in it do not have; BAD_INPUT for one that is sent
// as another type (a text as a number), and for more than kMaxValues. Bytes that are no message are left to the parser.
absl::Status scan_request(std::span<const uint8_t> bytes, const google::protobuf::Descriptor& type);

}  // namespace pkv
