#include "pipe/server.h"

#include <cstdio>
#include <string>
#include <utility>

#include "ops/operators.h"

namespace modiff {
namespace {

enum Kind : uint8_t {
  kInfo = 0x01,
  kBegin = 0x02,
  kStep = 0x03,
  kResult = 0x04,
  kSnapshot = 0x05,
  kRestore = 0x06,
  kRelease = 0x07,
  kMemory = 0x08,
  kLook = 0x09,
  kReplyBit = 0x80,
  kError = 0xFF,
};

constexpr size_t kBeginHeaderBytes = 16;
enum PixelType : uint8_t { kFloat32 = 0, kUint8 = 1 };

Frame error_frame(uint8_t slot, const Failure& failure) {
  Frame frame = {kError, slot, {}};
  put(&frame.payload, static_cast<uint32_t>(failure.code));
  put_bytes(&frame.payload, failure.message, std::strlen(failure.message));
  return frame;
}

// From the pixels of a BEGIN to floats in [-1, 1].
Failure decode_image(uint8_t type, Reader* reader, size_t values, std::vector<float>* image) {
  const size_t pixel_bytes = type == kFloat32 ? sizeof(float) : 1;
  if (reader->left() < values * pixel_bytes) {
    return {Code::kImageSize, "the image has another size than the program's"};
  }
  const uint8_t* bytes = reader->take(values * pixel_bytes);
  image->resize(values);
  if (type == kFloat32) {
    std::memcpy(image->data(), bytes, values * sizeof(float));
    return {};
  }
  for (size_t i = 0; i < values; ++i) {
    const float scaled = static_cast<float>(bytes[i]) / 127.5F;
    (*image)[i] = scaled - 1.0F;
  }
  return {};
}

void put_floats(Bytes* bytes, const std::vector<float>& values) {
  put_bytes(bytes, values.data(), values.size() * sizeof(float));
}

Failure step(Slot& slot, Bytes* reply) {
  StepReport report = {};
  const Failure failure = slot.step(&report);
  if (!failure.failed()) {
    put(reply, report.step);
    put(reply, report.steps_left);
    put(reply, report.nanoseconds);
    put(reply, report.statistics.passes);
    put(reply, report.statistics.residual_passes);
    put(reply, report.statistics.macs);
    put(reply, report.statistics.saturated);
  }
  return failure;
}

Failure result(const Slot& slot, Bytes* reply) {
  JobResult result = {};
  const Failure failure = slot.result(&result);
  if (!failure.failed()) {
    put(reply, static_cast<uint32_t>((result.has_map ? 1 : 0) | (result.has_novelty ? 0x100 : 0)));
    put(reply, result.score);
    put(reply, result.novelty);
    put_floats(reply, result.x);
    put_floats(reply, result.map);
  }
  return failure;
}

Failure look(const Slot& slot, Bytes* reply) {
  const std::vector<float>* x = nullptr;
  const Failure failure = slot.look(&x);
  if (!failure.failed()) {
    put_floats(reply, *x);
  }
  return failure;
}

Failure snapshot(const Slot& slot, Bytes* reply) {
  const Failure failure = slot.snapshot(reply);
  if (!failure.failed() && reply->size() > kMostPayloadBytes) {
    return {Code::kNoMemory, "the snapshot is longer than a frame"};
  }
  return failure;
}

std::string describe_conditions(const ProgramFacts& facts) {
  std::string text;
  for (const ConditionFacts& condition : facts.conditions) {
    std::string sizes;
    for (const int32_t size : condition.sizes) {
      sizes += (sizes.empty() ? "" : ",") + std::to_string(size);
    }
    text += std::string(text.empty() ? "" : ",") + "{\"type\":\"" + (condition.is_float ? "float32" : "int64") +
            "\",\"sizes\":[" + sizes + "]}";
  }
  return text;
}

bool takes_payload(uint8_t kind) { return kind == kBegin || kind == kRestore; }
bool takes_slot(uint8_t kind) { return (kind >= kBegin && kind <= kRelease) || kind == kLook; }

}  // namespace

Server::Server(SlotPool* pool, unsigned slots) : pool_(pool) {
  for (unsigned i = 0; i < slots; ++i) {
    slots_.emplace_back(pool);
  }
}

int Server::serve(int requests, int replies) {
  Frame request = {};
  for (;;) {
    switch (read_frame(requests, &request)) {
      case ReadStatus::kFrame:
        if (!write_frame(replies, answer(request))) {
          return 0;
        }
        break;
      case ReadStatus::kEnd:
        return 0;
      case ReadStatus::kCut:
        std::fprintf(stderr, "modiff-engine: the requests ended inside a frame\n");
        return 1;
      case ReadStatus::kTooLong:
        std::fprintf(stderr, "modiff-engine: not a frame, or one beyond %u bytes\n", kMostPayloadBytes);
        write_frame(replies, error_frame(0, {Code::kBadFrame, "not a frame, or one that is too long"}));
        return 1;
    }
  }
}

Frame Server::answer(const Frame& request) {
  Frame reply = {static_cast<uint8_t>(request.kind | kReplyBit), request.slot, {}};
  const Failure failure = dispatch(request, &reply.payload);
  return failure.failed() ? error_frame(request.slot, failure) : std::move(reply);
}

Failure Server::dispatch(const Frame& request, Bytes* reply) {
  if (!request.payload.empty() && !takes_payload(request.kind)) {
    return {Code::kBadFrame, "this request has no payload"};
  }
  if (takes_slot(request.kind) && request.slot >= slots_.size()) {
    return {Code::kNoSuchSlot, "no such slot"};
  }
  switch (request.kind) {
    case kInfo:
      describe(reply);
      return {};
    case kBegin:
      return begin(slots_[request.slot], request.payload);
    case kStep:
      return step(slots_[request.slot], reply);
    case kResult:
      return result(slots_[request.slot], reply);
    case kLook:
      return look(slots_[request.slot], reply);
    case kSnapshot:
      return snapshot(slots_[request.slot], reply);
    case kRestore:
      return slots_[request.slot].restore(request.payload.data(), request.payload.size());
    case kRelease:
      slots_[request.slot].release();
      return {};
    case kMemory:
      measure(reply);
      return {};
    default:
      return {Code::kBadFrame, "unknown kind of request"};
  }
}

Failure Server::begin(Slot& slot, const Bytes& payload) {
  if (payload.size() < kBeginHeaderBytes) {
    return {Code::kBadFrame, "BEGIN is too short"};
  }
  Reader reader(payload.data(), payload.size());
  JobStart job = {};
  job.seed = reader.get<uint64_t>();
  job.start = reader.get<uint32_t>();
  const uint8_t has_image = reader.get<uint8_t>();
  const uint8_t type = reader.get<uint8_t>();
  const uint16_t zero = reader.get<uint16_t>();
  if (has_image > 1 || type > kUint8 || zero != 0) {
    return {Code::kBadFrame, "a field of BEGIN is out of range"};
  }
  job.has_image = has_image == 1;
  const ProgramFacts& facts = pool_->program->facts();
  if (job.has_image) {
    const Failure failure = decode_image(type, &reader, facts.values(), &job.image);
    if (failure.failed()) {
      return failure;
    }
  }
  const size_t left = reader.left();
  if (left != facts.condition_bytes) {
    return facts.conditions.empty()
               ? Failure{Code::kImageSize, job.has_image ? "the image has another size than the program's"
                                                         : "an image where none was announced"}
               : Failure{Code::kConditionSize, "the conditions have another size than the program's"};
  }
  const uint8_t* conditions = reader.take(left);
  job.conditions.assign(conditions, conditions + left);
  return slot.begin(std::move(job));
}

void Server::describe(Bytes* reply) const {
  const ProgramFacts& facts = pool_->program->facts();
  std::string operators;
  for (const auto& kernel : own_operators()) {
    operators += std::string(operators.empty() ? "" : ",") + '"' + kernel.name_ + '"';
  }
  const auto field = [](const char* name, unsigned long long value) {
    return std::string(",\"") + name + "\":" + std::to_string(value);
  };
  const std::string text =
      std::string("{\"isa\":\"") + active_kernels().isa + "\"" + field("steps", static_cast<unsigned>(facts.steps)) +
      field("channels", static_cast<unsigned>(facts.channels)) + field("height", static_cast<unsigned>(facts.height)) +
      field("width", static_cast<unsigned>(facts.width)) + field("state_bytes_per_slot", facts.state_bytes) +
      field("activation_bytes", facts.activation_bytes) + field("program_bytes", facts.program_bytes) +
      field("slots", slots_.size()) + field("draws_noise", facts.draws_noise ? 1 : 0) +
      field("condition_bytes", facts.condition_bytes) + ",\"conditions\":[" +
      describe_conditions(facts) + "],\"operators\":[" + operators + "],\"executorch\":\"" + MODIFF_EXECUTORCH_VERSION +
      "\"}";
  put_bytes(reply, text.data(), text.size());
}

namespace {

// Of this program alone: getrusage would count what the process was before exec, a copy of its parent.
uint64_t peak_resident_bytes() {
  std::FILE* status = std::fopen("/proc/self/status", "re");
  if (status == nullptr) {
    return 0;
  }
  char line[256];
  unsigned long long kibibytes = 0;
  while (std::fgets(line, sizeof line, status) != nullptr && std::sscanf(line, "VmHWM: %llu", &kibibytes) != 1) {
  }
  std::fclose(status);
  return kibibytes * 1024;
}

}  // namespace

void Server::measure(Bytes* reply) const {
  put(reply, peak_resident_bytes());
  put(reply, static_cast<uint64_t>(pool_->state_in_use));
}

}  // namespace modiff
