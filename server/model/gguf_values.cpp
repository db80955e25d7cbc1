// The values of keys: numbers, booleans, strings and arrays of them.
#include "server/model/gguf_values.h"

#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/model/errors.h"

namespace pkv {
namespace {

enum ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

// Calls `function(std::type_identity<T>{})` with the C++ type of a number; false if `type` is not a number's.
template <typename Function>
bool with_number_type(uint32_t type, Function function) {
  switch (type) {
    case kU8:
      return function(std::type_identity<uint8_t>{}), true;
    case kI8:
      return function(std::type_identity<int8_t>{}), true;
    case kU16:
      return function(std::type_identity<uint16_t>{}), true;
    case kI16:
      return function(std::type_identity<int16_t>{}), true;
    case kU32:
      return function(std::type_identity<uint32_t>{}), true;
    case kI32:
      return function(std::type_identity<int32_t>{}), true;
    case kU64:
      return function(std::type_identity<uint64_t>{}), true;
    case kI64:
      return function(std::type_identity<int64_t>{}), true;
    case kF32:
      return function(std::type_identity<float>{}), true;
    case kF64:
      return function(std::type_identity<double>{}), true;
    default:
      return false;
  }
}

// What GgufValue holds a number of type T as.
template <typename T>
using Wide = std::conditional_t<std::is_floating_point_v<T>, double,
                                std::conditional_t<std::is_unsigned_v<T>, uint64_t, int64_t>>;

class ValueReader {
 public:
  ValueReader(GgufCursor& cursor, std::string_view name) : cursor_(cursor), name_(name) {}

  absl::StatusOr<GgufValue> read(uint32_t type) {
    GgufValue value;
    bool complete = false;
    if (with_number_type(type, [&]<typename T>(std::type_identity<T>) {
          T number{};
          complete = cursor_.read(&number);
          value = Wide<T>{number};
        })) {
      if (!complete) return invalid_argument("key ", name_, ": its value runs beyond the end of the file");
      return value;
    }
    if (type == kBool) {
      uint8_t byte = 0;
      if (!cursor_.read(&byte)) return invalid_argument("key ", name_, ": its value runs beyond the end of the file");
      if (byte > 1) return invalid_argument("key ", name_, ": a boolean with the value ", byte);
      return GgufValue(std::in_place_type<bool>, byte == 1);
    }
    if (type == kString) {
      std::string text;
      if (!cursor_.read_string(&text)) {
        return invalid_argument("key ", name_, ": its string runs beyond the end of the file");
      }
      return GgufValue(std::move(text));
    }
    if (type == kArray) return read_array();
    return invalid_argument("key ", name_, ": unknown value type ", type);
  }

 private:
  absl::StatusOr<GgufValue> read_array() {
    uint32_t type = 0;
    uint64_t count = 0;
    if (!cursor_.read(&type) || !cursor_.read(&count)) {
      return invalid_argument("key ", name_, ": the file ends in its array's header");
    }
    if (type == kArray) return unimplemented("key ", name_, ": arrays of arrays are not read");
    const absl::Status too_long =
        invalid_argument("key ", name_, ": an array of ", count, " elements runs beyond the end of the file");
    absl::Status status;
    GgufArray array;
    if (with_number_type(type, [&]<typename T>(std::type_identity<T>) {
          status = count > cursor_.remaining() / sizeof(T) ? too_long : read_numbers<T>(count, &array);
        })) {
      if (!status.ok()) return status;
      return GgufValue(std::move(array));
    }
    if (type == kBool) {
      if (count > cursor_.remaining()) return too_long;
      std::vector<bool> flags(count);
      for (uint64_t i = 0; i < count; ++i) {
        uint8_t byte = 0;
        cursor_.read(&byte);
        if (byte > 1) return invalid_argument("key ", name_, ": element ", i, " is a boolean with the value ", byte);
        flags[i] = byte == 1;
      }
      return GgufValue(GgufArray(std::move(flags)));
    }
    if (type == kString) {
      if (count > cursor_.remaining() / sizeof(uint64_t)) return too_long;  // every string has at least its length
      std::vector<std::string> strings(count);
      for (uint64_t i = 0; i < count; ++i) {
        if (!cursor_.read_string(&strings[i])) {
          return invalid_argument("key ", name_, ": element ", i, " of ", count, " runs beyond the end of the file");
        }
      }
      return GgufValue(GgufArray(std::move(strings)));
    }
    return invalid_argument("key ", name_, ": an array of unknown value type ", type);
  }

  // `count` numbers that are known to be there.
  template <typename T>
  absl::Status read_numbers(uint64_t count, GgufArray* array) {
    using Element = std::conditional_t<std::is_floating_point_v<T>, double, int64_t>;
    std::vector<Element> numbers(count);
    for (uint64_t i = 0; i < count; ++i) {
      T number{};
      cursor_.read(&number);
      if constexpr (std::is_same_v<T, uint64_t>) {
        if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
          return invalid_argument("key ", name_, ": element ", i, " is out of range: ", number);
        }
      }
      numbers[i] = static_cast<Element>(number);
    }
    *array = std::move(numbers);
    return absl::OkStatus();
  }

  GgufCursor& cursor_;
  std::string_view name_;
};

}  // namespace

std::string printable(std::string_view name) {
  constexpr size_t kShown = 100;
  return absl::StrCat("'", absl::CHexEscape(std::string(name.substr(0, kShown))), name.size() > kShown ? "...'" : "'");
}

absl::StatusOr<GgufValue> read_gguf_value(GgufCursor& cursor, uint32_t type, std::string_view name) {
  return ValueReader(cursor, name).read(type);
}

}  // namespace pkv
