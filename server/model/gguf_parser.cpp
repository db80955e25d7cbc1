// GGUF v2 and v3 as ggml specifies them: header, key/value pairs, tensor descriptions, aligned tensor data.
#include "server/model/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/quant.h"
#include "kernels/status_macros.h"
#include "server/model/errors.h"
#include "server/model/gguf_values.h"

namespace pkv {
namespace {

constexpr uint32_t kDefaultAlignment = 32;
constexpr uint32_t kMinAlignment = 8;  // the specification wants a multiple of 8
constexpr uint32_t kMaxDims = 4;
constexpr size_t kMaxNameBytes = 65535;
constexpr std::string_view kAlignmentKey = "general.alignment";

// Files that people take for GGUF files, by their first bytes.
std::string_view foreign_format(std::string_view head) {
  struct Magic {
    std::string_view bytes, format;
  };
  static constexpr Magic kMagics[] = {{"lmgg", "a ggml file from before GGUF"},
                                      {"fmgg", "a ggml file from before GGUF"},
                                      {"tjgg", "a ggml file from before GGUF"},
                                      {"algg", "a ggml adapter file from before GGUF"},
                                      {"PK\x03\x04", "a zip archive (a PyTorch checkpoint or a Python package)"},
                                      {"\x89HDF", "an HDF5 file"},
                                      {"version https://git-lfs", "a Git LFS pointer, not the file itself"},
                                      {"\x1f\x8b", "a gzip file"},
                                      {"(\xb5/\xfd", "a Zstandard file"},
                                      {"\177ELF", "a program"},
                                      {"<!DOCTYPE", "an HTML page"},
                                      {"<html", "an HTML page"},
                                      {"{", "a JSON file"}};
  for (const Magic& magic : kMagics) {
    if (head.starts_with(magic.bytes)) return magic.format;
  }
  if (head.size() > 9 && head[8] == '{' && head[9] == '"') return "a safetensors file";
  return {};
}

class Parser {
 public:
  explicit Parser(std::span<const std::byte> file) : file_(file), cursor_(file) {}

  absl::StatusOr<GgufContents> parse() {
    PKV_RETURN_IF_ERROR(read_header());
    for (uint64_t i = 0; i < key_count_; ++i) {
      PKV_RETURN_IF_ERROR(read_key(i));
    }
    offsets_.reserve(tensor_count_);
    contents_.tensors.reserve(tensor_count_);
    for (uint64_t i = 0; i < tensor_count_; ++i) {
      PKV_RETURN_IF_ERROR(read_tensor(i));
    }
    PKV_RETURN_IF_ERROR(place_tensors());
    return std::move(contents_);
  }

 private:
  absl::Status read_header() {
    const std::string_view head(reinterpret_cast<const char*>(file_.data()), std::min<size_t>(file_.size(), 64));
    if (!head.starts_with("GGUF")) {
      if (head.empty()) return invalid_argument("not a GGUF file: it is empty");
      const std::string_view format = foreign_format(head);
      return format.empty() ? invalid_argument("not a GGUF file: it begins with ", printable(head.substr(0, 4)))
                            : invalid_argument("not a GGUF file but ", format);
    }
    uint32_t magic = 0, version = 0;
    if (!cursor_.read(&magic) || !cursor_.read(&version)) return invalid_argument("truncated in the header");
    if (version != 0 && (version & 0xffff) == 0) {
      return unimplemented("a big-endian GGUF file; only little-endian ones are read");
    }
    if (version == 1) return unimplemented("GGUF version 1; versions 2 and 3 are read");
    if (version != 2 && version != 3) return invalid_argument("GGUF version ", version, "; versions 2 and 3 are read");
    if (!cursor_.read(&tensor_count_) || !cursor_.read(&key_count_)) return invalid_argument("truncated in the header");
    // The smallest descriptions there can be: a name of one byte, and a value of one byte or one dimension.
    constexpr size_t kMinKeyBytes = 8 + 1 + 4 + 1, kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;
    if (key_count_ > cursor_.remaining() / kMinKeyBytes) {
      return invalid_argument("the header declares ", key_count_, " keys, more than the file has room for");
    }
    if (tensor_count_ > cursor_.remaining() / kMinTensorBytes) {
      return invalid_argument("the header declares ", tensor_count_, " tensors, more than the file has room for");
    }
    return absl::OkStatus();
  }

  absl::Status read_key(uint64_t index) {
    std::string key;
    if (!cursor_.read_string(&key)) {
      return invalid_argument("key ", index, " of ", key_count_, last_name_,
                              ": its name runs beyond the end of the file");
    }
    if (key.empty() || key.size() > kMaxNameBytes) {
      return invalid_argument("key ", index, " of ", key_count_, last_name_, ": a name of ", key.size(), " bytes");
    }
    const std::string name = printable(key);
    last_name_ = absl::StrCat(" (after ", name, ")");
    if (contents_.values.contains(key)) return invalid_argument("key ", name, ": occurs twice");
    uint32_t type = 0;
    if (!cursor_.read(&type)) return invalid_argument("key ", name, ": the file ends before its type");
    PKV_ASSIGN_OR_RETURN(GgufValue value, read_gguf_value(cursor_, type, name));
    contents_.values.emplace(std::move(key), std::move(value));
    return absl::OkStatus();
  }

  absl::Status read_tensor(uint64_t index) {
    GgufTensor tensor;
    if (!cursor_.read_string(&tensor.name)) {
      return invalid_argument("tensor ", index, " of ", tensor_count_, last_name_,
                              ": its name runs beyond the end of the file");
    }
    if (tensor.name.empty() || tensor.name.size() > kMaxNameBytes) {
      return invalid_argument("tensor ", index, " of ", tensor_count_, last_name_, ": a name of ", tensor.name.size(),
                              " bytes");
    }
    const std::string name = printable(tensor.name);
    last_name_ = absl::StrCat(" (after ", name, ")");
    if (!names_.insert(tensor.name).second) return invalid_argument("tensor ", name, ": occurs twice");
    const absl::Status truncated = invalid_argument("tensor ", name, ": the file ends in its description");

    uint32_t dim_count = 0, ggml_id = 0;
    uint64_t offset = 0;
    if (!cursor_.read(&dim_count)) return truncated;
    if (dim_count < 1 || dim_count > kMaxDims) {
      return invalid_argument("tensor ", name, ": ", dim_count, " dimensions; 1 to ", kMaxDims, " are possible");
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < dim_count; ++i) {
      uint64_t dim = 0;
      if (!cursor_.read(&dim)) return truncated;
      if (dim == 0 || dim > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
          __builtin_mul_overflow(elements, dim, &elements)) {
        return invalid_argument("tensor ", name, ": impossible size ", dim, " of dimension ", i);
      }
      tensor.dims.push_back(static_cast<int64_t>(dim));
    }
    if (!cursor_.read(&ggml_id) || !cursor_.read(&offset)) return truncated;
    return describe_tensor(std::move(tensor), ggml_id, {offset, elements});
  }

  struct Place {
    uint64_t offset = 0;  // bytes from the start of the data section
    uint64_t size = 0;    // first elements, then bytes
  };

  // Checks the format against the dimensions and notes where the data must be.
  absl::Status describe_tensor(GgufTensor tensor, uint32_t ggml_id, Place place) {
    const std::string name = printable(tensor.name);
    const QuantTraits* traits = find_quant_by_ggml_id(ggml_id);
    if (traits == nullptr) {
      const std::string_view type = ggml_type_name(ggml_id);
      if (type == "unknown") return invalid_argument("tensor ", name, ": unknown weight format ", ggml_id);
      return unimplemented("tensor ", name, ": weight format ", type, " is not supported");
    }
    const auto block_size = static_cast<uint64_t>(traits->block_size);
    if (static_cast<uint64_t>(tensor.dims[0]) % block_size != 0) {
      return invalid_argument("tensor ", name, ": rows of ", tensor.dims[0], " weights are not whole blocks of ",
                              block_size, " (", traits->name, ")");
    }
    if (__builtin_mul_overflow(place.size / block_size, static_cast<uint64_t>(traits->block_bytes), &place.size)) {
      return invalid_argument("tensor ", name, ": impossible number of elements");
    }
    tensor.type = traits->type;
    contents_.tensors.push_back(std::move(tensor));
    offsets_.push_back(place);
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> alignment() const {
    const auto found = contents_.values.find(kAlignmentKey);
    if (found == contents_.values.end()) return kDefaultAlignment;
    const uint64_t* value = std::get_if<uint64_t>(&found->second);
    if (value == nullptr) return invalid_argument("key '", kAlignmentKey, "': not an unsigned integer");
    if (!std::has_single_bit(*value) || *value < kMinAlignment || *value > std::numeric_limits<uint32_t>::max()) {
      return invalid_argument("key '", kAlignmentKey, "': ", *value, " is not a power of two from ", kMinAlignment,
                              " on");
    }
    return *value;
  }

  // Gives every tensor its bytes: aligned, inside the file, shared with no other.
  absl::Status place_tensors() {
    PKV_ASSIGN_OR_RETURN(const uint64_t align, alignment());
    const uint64_t data_begin = (cursor_.offset() + align - 1) / align * align;
    const uint64_t data_bytes = file_.size() > data_begin ? file_.size() - data_begin : 0;
    for (size_t i = 0; i < offsets_.size(); ++i) {
      const Place& place = offsets_[i];
      const std::string name = printable(contents_.tensors[i].name);
      if (place.offset % align != 0) {
        return invalid_argument("tensor ", name, ": offset ", place.offset, " is not a multiple of the alignment ",
                                align);
      }
      if (place.size > data_bytes || place.offset > data_bytes - place.size) {
        return invalid_argument("tensor ", name, ": its ", place.size, " bytes at offset ", place.offset,
                                " run beyond the end of the file, which has ", data_bytes, " bytes of tensor data");
      }
      contents_.tensors[i].data = file_.subspan(data_begin + place.offset, place.size);
    }
    std::vector<size_t> order(offsets_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::sort(order, {}, [this](size_t i) { return offsets_[i].offset; });
    for (size_t i = 1; i < order.size(); ++i) {
      const Place& before = offsets_[order[i - 1]];
      if (before.offset + before.size > offsets_[order[i]].offset) {
        return invalid_argument("tensor ", printable(contents_.tensors[order[i]].name), ": overlaps tensor ",
                                printable(contents_.tensors[order[i - 1]].name));
      }
    }
    return absl::OkStatus();
  }

  std::span<const std::byte> file_;
  GgufCursor cursor_;
  uint64_t key_count_ = 0;
  uint64_t tensor_count_ = 0;
  std::string last_name_;        // for messages about a name that cannot be read
  std::set<std::string> names_;  // of tensors
  std::vector<Place> offsets_;   // parallel to contents_.tensors
  GgufContents contents_;
};

}  // namespace

absl::StatusOr<GgufContents> parse_gguf(std::span<const std::byte> file) { return Parser(file).parse(); }

}  // namespace pkv
