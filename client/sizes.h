// Sizes in bytes as people type them, read by one function for every flag, and written as a flag takes them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace pkv::client {

// "4MiB", "4 MiB", "4mib", "4M" and "4m" are 4 x 2^20, "4MB" and "4mb" 4 x 10^6, "4096B" bytes; likewise k, G and T.
// Where `bare_number` allows it also "4096". Nothing where `text` is no size.
std::optional<uint64_t> parse_bytes(const std::string& text, bool bare_number);

// For complaints: which forms there are.
extern const char* const kSizeForms;

// A size as parse_bytes takes it, exactly: "4MiB", "1211KiB", "4097B".
std::string size_word(uint64_t bytes);
// The least size in whole KiB that is not below `bytes`.
std::string size_word_above(uint64_t bytes);

}  // namespace pkv::client
