// pkv-calibrate: makes the lane table of a model, which the server reads as model.lane_table.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/status_macros.h"
#include "server/calibration.h"
#include "server/model/fingerprint.h"
#include "server/text/tokenizer.h"

namespace pkv {
namespace {

struct CalibrateOptions {
  std::string model, output;
  std::vector<std::string> texts = {"/usr/share/common-licenses"};
  int32_t prompts = 10, tokens = 2000, threads = 0;
};

// What is asked behind a document; each prompt is read with and without.
constexpr std::string_view kQuestions[] = {
    "\n\nQuestion: What is the text above about?\nAnswer:",
    "\n\nQuestion: Which conditions does the text name, and for whom?\nAnswer:",
    "\n\nSummarise the text above in three sentences.\n",
    "\n\nQuestion: What does the third paragraph of the text say?\nAnswer:",
};

// Files by name; of a folder those in it.
absl::StatusOr<std::vector<std::string>> files_of(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  std::error_code error;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    std::vector<std::string> inside;
    for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
      if (entry.is_regular_file(error) && !entry.is_symlink(error)) inside.push_back(entry.path().string());
    }
    std::sort(inside.begin(), inside.end());
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

// Pieces of the texts, spread over all of them.
absl::StatusOr<std::vector<std::vector<TokenId>>> read_prompts(const CalibrateOptions& options,
                                                               const Tokenizer& tokenizer) {
  PKV_ASSIGN_OR_RETURN(const std::vector<std::string> files, files_of(options.texts));
  std::vector<std::vector<TokenId>> pieces;
  const auto size = static_cast<std::ptrdiff_t>(options.tokens);
  for (const std::string& path : files) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream.is_open()) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
    const std::string text((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    const auto ids = tokenizer.encode(text, SpecialTokens::kPlainText);
    if (!ids.ok()) continue;  // no text in UTF-8
    for (auto at = ids->begin(); ids->end() - at >= size; at += size) pieces.emplace_back(at, at + size);
  }
  const auto wanted = static_cast<size_t>(options.prompts);
  if (pieces.size() < wanted) {
    return absl::InvalidArgumentError(absl::StrCat("the texts have ", pieces.size(), " pieces of ", options.tokens,
                                                   " tokens, not ", wanted,
                                                   "; name more with --texts, or fewer --prompts"));
  }
  std::vector<std::vector<TokenId>> prompts;
  for (size_t i = 0; i < wanted; ++i) {
    std::vector<TokenId> document = std::move(pieces[i * pieces.size() / wanted]);
    PKV_ASSIGN_OR_RETURN(const std::vector<TokenId> question,
                         tokenizer.encode(kQuestions[i % std::size(kQuestions)], SpecialTokens::kPlainText));
    prompts.push_back(document);
    document.insert(document.end(), question.begin(), question.end());
    prompts.push_back(std::move(document));
  }
  return prompts;
}

absl::Status run(const CalibrateOptions& options) {
  PKV_ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::open(options.model));
  PKV_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                       make_backend({.device = "cpu", .threads = options.threads}));
  PKV_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, load_tokenizer(*file));
  PKV_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, load_model(*file, *backend));
  PKV_ASSIGN_OR_RETURN(const std::vector<std::vector<TokenId>> prompts, read_prompts(options, *tokenizer));
  const absl::Time begin = absl::Now();
  CalibrationOptions calibration;
  calibration.progress = [&](size_t done) {
    std::cerr << "prompt " << done << " of " << prompts.size() << ", " << absl::ToInt64Seconds(absl::Now() - begin)
              << " s" << std::endl;
  };
  PKV_ASSIGN_OR_RETURN(LaneTable table, calibrate(*model, prompts, calibration));
  table.model = model_fingerprint(*file);
  std::ofstream out(options.output, std::ios::binary);
  out << "# Made by pkv-calibrate from " << options.prompts << " documents of " << options.tokens
      << " tokens, each with and without a question behind it.\n"
      << format_lane_table(table);
  out.close();
  if (!out) return absl::UnavailableError(absl::StrCat(options.output, ": cannot be written"));
  return absl::OkStatus();
}

}  // namespace
}  // namespace pkv

int main(int argc, char** argv) {
  pkv::CalibrateOptions options;
  CLI::App app("Makes the lane table of a model, which pyramidkv-server reads as model.lane_table (policy funnel)");
  app.add_option("--model", options.model, "GGUF file")->required();
  app.add_option("--output", options.output, "The table")->required();
  app.add_option("--texts", options.texts, "Text files, or folders of them, in UTF-8")->capture_default_str();
  app.add_option("--prompts", options.prompts, "Documents to read")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--tokens", options.tokens, "Length of a document")
      ->check(CLI::Range(1200, 1 << 20))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "0: one per core")->check(CLI::Range(0, 1024));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = pkv::run(options);
  if (status.ok()) return 0;
  std::cerr << "pkv-calibrate: " << status.message() << "\n";
  return 1;
}
