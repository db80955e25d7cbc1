// A CachePolicy as the words of the command line that ask for it: the way back from policy_options.h.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "pyramidkv/v1/cache.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

// "pyramidkv", or the name of the preset; "" where none is set.
std::string policy_name(const v1::CachePolicy& policy);
// "128", "12%", "4MiB", "recall:0.95"; "" where there is no amount.
std::string budget_word(const v1::CacheBudget& budget);
// "window_tokens=8" for every parameter that is set; enums as words.
std::vector<std::string> parameter_words(const v1::CachePolicy& policy);
// --policy, --budget, --param ... : build_policy makes the same message of them.
std::vector<std::string> policy_flags(const v1::CachePolicy& policy);

// One word for a shell: in quotes where it has to be.
std::string shell_word(absl::string_view word);
std::string shell_command(const std::vector<std::string>& words);

}  // namespace pkv::client
