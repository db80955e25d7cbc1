// What make_cases.py has written, and its values as template values.
#pragma once

#include <nlohmann/json.hpp>

#include "server/text/jinja/template.h"

namespace pkv::jinja::test {

using Json = nlohmann::ordered_json;

// cases.json, whose path is in PKV_JINJA_CASES.
const Json& cases();

// Strings in it come from `source`.
Value to_value(const Json& json, Source source = kTemplate);

// As chats are rendered: everything in message i comes from source i, bos_token is <s>, eos_token </s>.
Variables chat_variables(const Json& variables);
Variables plain_variables(const Json& variables);

// 2026-02-03 04:05:06, a Tuesday.
std::tm some_time();

}  // namespace pkv::jinja::test
