// The values of templates, as Python has them. Immutable but for namespaces, loops and generators; cheap to copy.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "server/text/jinja/budget.h"
#include "server/text/jinja/text.h"

namespace pkv::jinja {

// What a value costs beside its own bytes: the block it lies in, and its counters.
inline constexpr size_t kBlockBytes = 64;

class Value;
struct Callable;
struct Loop;
struct Macro;
struct Namespace;

// What does not exist, for errors: an attribute `name` of an `owner` (dict, str), or a variable where that is null.
// Both point to what lives longer than the rendering; without a name it is a computed one.
struct Undefined {
  const std::string* name = nullptr;
  const char* owner = nullptr;
};
struct None {};

struct String {
  Text text;
  bool markup = false;  // HTML that is not to be escaped: what the filters safe and escape give
  Charge charge;
};

// A range also knows what it was made of, and a generator whether it has been walked through.
struct Sequence {
  enum class Form : uint8_t { kList, kTuple, kRange, kDictView, kGenerator };

  Form form = Form::kList;
  mutable bool used = false;
  int depth = 1;
  std::vector<Value> items;
  std::string_view view;  // kDictView: dict_items, dict_keys or dict_values
  int64_t start = 0, stop = 0, step = 1;
  Charge charge;
};

// In the order of insertion. Keys are strings, numbers, bools, none, tuples.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  Source source = kTemplate;  // a number of the caller's own, which an error inside a loop over such dicts names
  int depth = 1;
  Charge charge;

  const Value* find(std::string_view key) const;
};

class Value {
 public:
  using Storage = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const String>,
                               std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>, Namespace*,
                               std::shared_ptr<Loop>, std::shared_ptr<const Callable>>;

  Value() = default;  // undefined
  Value(Storage storage) : storage_(std::move(storage)) {}

  // Of things of the caller's, outside of any budget.
  static Value of(bool value) { return Value(Storage(value)); }
  static Value of(int64_t value) { return Value(Storage(value)); }
  static Value of(double value) { return Value(Storage(value)); }
  static Value none() { return Value(Storage(None())); }
  static Value string(Text text);
  static Value list(std::vector<Value> items);
  static Value dict(std::vector<std::pair<std::string, Value>> items, Source source = kTemplate);

  bool is_undefined() const { return std::holds_alternative<Undefined>(storage_); }
  bool is_none() const { return std::holds_alternative<None>(storage_); }
  const Undefined* undefined() const { return std::get_if<Undefined>(&storage_); }
  const bool* boolean() const { return std::get_if<bool>(&storage_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&storage_); }
  const double* real() const { return std::get_if<double>(&storage_); }
  const String* string() const { return get<const String>(); }
  const Sequence* sequence() const { return get<const Sequence>(); }
  const Dict* dict() const { return get<const Dict>(); }
  Loop* loop() const { return get<Loop>(); }
  const Callable* callable() const { return get<const Callable>(); }
  Namespace* name_space() const;
  // True is 1, as in Python; none where this is not an integer or bool.
  std::optional<int64_t> as_integer() const;
  std::optional<double> as_real() const;  // also of integers

  bool truthy() const;
  int depth() const;              // 0: nothing in it
  std::string_view type() const;  // as Python's errors say it: str, int, NoneType
  const Storage& storage() const { return storage_; }

 private:
  template <typename T>
  T* get() const {
    const auto* held = std::get_if<std::shared_ptr<T>>(&storage_);
    return held == nullptr ? nullptr : held->get();
  }

  Storage storage_;
};

// Lives until its rendering ends, so that it may contain itself.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  Charge charge;

  Value* find(std::string_view name);
};

// What `loop` is inside of one.
struct Loop {
  std::shared_ptr<const Sequence> items;
  size_t index = 0;
  Charge charge;
};

// The values of one rendering, within its budget. What the budget has no room for comes back empty or cut off; the
// budget says so.
Value make_string(Text text, Budget& budget, bool markup = false);
Value make_list(std::vector<Value> items, Budget& budget, Sequence::Form form = Sequence::Form::kList);
Value make_view(std::vector<Value> items, std::string_view view, Budget& budget);
Value make_range(std::vector<Value> items, int64_t start, int64_t stop, int64_t step, Budget& budget);
Value make_dict(std::vector<std::pair<Value, Value>> items, Budget& budget);
Value make_generator(std::vector<Value> items, Budget& budget);

}  // namespace pkv::jinja
