// Text of one configuration value to its type, and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pkv {

// Each gives nothing where the text is not wholly such a value.
std::optional<int64_t> parse_integer(std::string_view text);
std::optional<double> parse_real(std::string_view text);  // finite
std::optional<bool> parse_boolean(std::string_view text);
// A number of bytes, or one with a unit: KiB, MiB, GiB, TiB (powers of 1024) or kB, MB, GB, TB (powers of 1000):
// "512MiB", "1.5 GiB".
std::optional<uint64_t> parse_bytes(std::string_view text);

std::string show_bytes(uint64_t bytes);  // in the largest binary unit that divides it
std::string show_real(double value);     // shortest text that reads back as the same value

// "host:port" with a port from 0 to 65535 and a host that is not empty; IPv6 hosts in brackets.
bool is_listen_address(std::string_view text);
// Whether only this machine can reach a listen address.
bool is_local_address(std::string_view listen);

// Insertions, deletions and replacements of one character that make `a` of `b`.
size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace pkv
