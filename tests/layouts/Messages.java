import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.ParameterizedType;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.RawTaggedField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.record.internal.MemoryRecords;

/**
 * Kafka's own classes as the judge of the layout table.
 *
 * <p>{@code generate COUNT SEED OUT}: writes what the classes know of every API, then COUNT random
 * messages of every API, version and direction, each with the rendering of Kafka's own JSON
 * converter. Which fields a version has comes from the classes' schemas, not from the definitions
 * that the table was derived from.
 *
 * <p>{@code reencode IN OUT}: decodes every message of IN, and writes what encoding it again
 * yields, or why the classes refuse it.
 *
 * <p>A record is: key int16, direction int8 (0 request, 1 response, 2 facts), version int16, then
 * two byte strings with an int32 length each (message and JSON; or result and refusal).
 */
public final class Messages {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Map<Class<?>, Map<String, Field>> FIELDS = new HashMap<>();

    private final Random random;

    private Messages(Random random) {
        this.random = random;
    }

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "generate":
                generate(Integer.parseInt(arguments[1]), Long.parseLong(arguments[2]),
                    Path.of(arguments[3]));
                break;
            case "reencode":
                reencode(Path.of(arguments[1]), Path.of(arguments[2]));
                break;
            default:
                throw new IllegalArgumentException("unknown mode " + arguments[0]);
        }
    }

    private static void generate(int count, long seed, Path out) throws Exception {
        Messages messages = new Messages(new Random(seed));
        try (DataOutputStream output = new DataOutputStream(
                new BufferedOutputStream(Files.newOutputStream(out), 1 << 16))) {
            for (ApiMessageType api : ApiMessageType.values()) {
                if (api.lowestSupportedVersion() > api.highestSupportedVersion(true)) {
                    continue;
                }
                record(output, api.apiKey(), 2, (short) 0, new byte[0], facts(api));
                short last = api.highestSupportedVersion(false);
                for (short version = api.lowestSupportedVersion(); version <= last; version++) {
                    for (int direction = 0; direction < 2; direction++) {
                        for (int i = 0; i < count; i++) {
                            messages.one(output, api, direction, version);
                        }
                    }
                }
            }
        }
    }

    private static byte[] facts(ApiMessageType api) throws Exception {
        ObjectNode facts = JSON.createObjectNode();
        facts.put("name", api.newRequest().getClass().getSimpleName().replace("RequestData", ""));
        facts.put("first", api.lowestSupportedVersion());
        facts.put("last", api.highestSupportedVersion(false));
        ArrayNode request = facts.putArray("requestHeaders");
        ArrayNode response = facts.putArray("responseHeaders");
        short last = api.highestSupportedVersion(false);
        for (short version = api.lowestSupportedVersion(); version <= last; version++) {
            request.add(api.requestHeaderVersion(version));
            response.add(api.responseHeaderVersion(version));
        }
        return JSON.writeValueAsBytes(facts);
    }

    private void one(DataOutputStream output, ApiMessageType api, int direction, short version)
            throws Exception {
        ApiMessage message = direction == 0 ? api.newRequest() : api.newResponse();
        Schema[] schemas = direction == 0 ? api.requestSchemas() : api.responseSchemas();
        fill(message, schemas[version]);
        byte[] bytes = encode(message, version);
        Class<?> converter = Class.forName(message.getClass().getName() + "JsonConverter");
        Method write =
            converter.getMethod("write", message.getClass(), short.class, boolean.class);
        byte[] json = JSON.writeValueAsBytes(write.invoke(null, message, version, false));
        record(output, api.apiKey(), direction, version, bytes, json);
    }

    private static void record(DataOutputStream output, short key, int direction, short version,
            byte[] first, byte[] second) throws Exception {
        output.writeShort(key);
        output.writeByte(direction);
        output.writeShort(version);
        output.writeInt(first.length);
        output.write(first);
        output.writeInt(second.length);
        output.write(second);
    }

    private static byte[] encode(Message message, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer buffer = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(buffer), cache, version);
        if (buffer.hasRemaining()) {
            throw new IllegalStateException("size and write disagree: " + message.getClass());
        }
        return buffer.array();
    }

    private static void reencode(Path in, Path out) throws Exception {
        try (DataInputStream input = new DataInputStream(
                 new BufferedInputStream(Files.newInputStream(in), 1 << 16));
             DataOutputStream output = new DataOutputStream(
                 new BufferedOutputStream(Files.newOutputStream(out), 1 << 16))) {
            while (true) {
                short key;
                try {
                    key = input.readShort();
                } catch (EOFException end) {
                    return;
                }
                int direction = input.readByte();
                short version = input.readShort();
                byte[] bytes = input.readNBytes(input.readInt());
                input.readNBytes(input.readInt());
                ApiMessageType api = ApiMessageType.fromApiKey(key);
                ApiMessage message = direction == 0 ? api.newRequest() : api.newResponse();
                byte[] again = new byte[0];
                String refusal = "";
                try {
                    ByteBufferAccessor accessor = new ByteBufferAccessor(ByteBuffer.wrap(bytes));
                    message.read(accessor, version);
                    if (accessor.remaining() > 0) {
                        refusal = accessor.remaining() + " bytes left over";
                    }
                    again = encode(message, version);
                } catch (RuntimeException exception) {
                    refusal = exception.toString();
                }
                record(output, key, direction, version, again,
                    refusal.getBytes(StandardCharsets.UTF_8));
            }
        }
    }

    /** Sets every field that the schema has. */
    private void fill(Message message, Schema schema) throws Exception {
        for (BoundField bound : schema.fields()) {
            if (bound.def.type instanceof TaggedFields) {
                Map<Integer, org.apache.kafka.common.protocol.types.Field> tagged =
                    ((TaggedFields) bound.def.type).fields();
                int next = 0;
                for (var entry : tagged.entrySet()) {
                    next = Math.max(next, entry.getKey() + 1);
                    if (random.nextInt(3) > 0) {
                        set(message, entry.getValue().name, entry.getValue().type);
                    }
                }
                if (random.nextInt(4) == 0) {
                    unknownTags(message, next);
                }
            } else {
                set(message, bound.def.name, bound.def.type);
            }
        }
    }

    private void unknownTags(Message message, int next) {
        int tag = next;
        for (int i = 1 + random.nextInt(2); i > 0; i--) {
            tag += random.nextInt(random.nextInt(8) == 0 ? 1 << 28 : 200);
            message.unknownTaggedFields().add(new RawTaggedField(tag, bytes()));
            tag++;
        }
    }

    private void set(Message message, String name, Type type) throws Exception {
        Field field = fields(message.getClass()).get(plain(name));
        if (field == null) {
            throw new IllegalStateException("no field " + name + " in " + message.getClass());
        }
        Class<?> java = field.getType();
        if (type.isNullable() && random.nextInt(4) == 0) {
            field.set(message, null);
        } else if (type.isArray()) {
            Type element = type.arrayElementType().orElseThrow();
            field.set(message, array(field, element));
        } else if (type instanceof Schema) {
            Message nested = (Message) construct(java);
            fill(nested, (Schema) type);
            field.set(message, nested);
        } else {
            field.set(message, scalar(java, type));
        }
    }

    @SuppressWarnings("unchecked")
    private Object array(Field field, Type element) throws Exception {
        Class<?> java = field.getType();
        java.lang.reflect.Type generic =
            java == List.class ? field.getGenericType() : java.getGenericSuperclass();
        Class<?> member = (Class<?>) ((ParameterizedType) generic).getActualTypeArguments()[0];
        Collection<Object> values =
            java == List.class ? new ArrayList<>() : (Collection<Object>) construct(java);
        int length = random.nextInt(60) == 0 ? 130 : random.nextInt(4);
        if (element instanceof Schema) {
            length = Math.min(length, 3);
        }
        for (int i = 0; i < length; i++) {
            if (element instanceof Schema) {
                Message nested = (Message) construct(member);
                fill(nested, (Schema) element);
                values.add(nested);
            } else {
                values.add(scalar(member, element));
            }
        }
        return values;
    }

    private Object scalar(Class<?> java, Type type) {
        if (java == boolean.class || java == Boolean.class) {
            return random.nextBoolean();
        } else if (java == byte.class || java == Byte.class) {
            return (byte) integer(8);
        } else if (java == short.class || java == Short.class) {
            return (short) integer(16);
        } else if (java == int.class || java == Integer.class) {
            return type == Type.UINT16 ? (int) (integer(16) & 0xffff) : (int) integer(32);
        } else if (java == long.class || java == Long.class) {
            return type == Type.UNSIGNED_INT32 ? integer(32) & 0xffffffffL : integer(64);
        } else if (java == double.class) {
            // Few enough digits for every JSON writer and reader to be exact.
            return (random.nextInt(1 << 21) - (1 << 20)) / 16.0;
        } else if (java == Uuid.class) {
            return random.nextInt(5) == 0
                ? Uuid.ZERO_UUID : new Uuid(random.nextLong(), random.nextLong());
        } else if (java == String.class) {
            return string();
        } else if (java == byte[].class) {
            return bytes();
        } else if (java == ByteBuffer.class) {
            return ByteBuffer.wrap(bytes());
        } else if (java.getSimpleName().equals("BaseRecords")) {
            return records();
        }
        throw new IllegalStateException("no values for " + java + " " + type);
    }

    /** Of all magnitudes, the extremes included. */
    private long integer(int bits) {
        int drop = 64 - bits;
        switch (random.nextInt(8)) {
            case 0: return 0;
            case 1: return -1;
            case 2: return Long.MAX_VALUE >> drop;
            case 3: return Long.MIN_VALUE >> drop;
            case 4: return random.nextInt(100);
            default: return random.nextLong() >> drop;
        }
    }

    /** Of all lengths around which the encodings of lengths change, in all widths of UTF-8. */
    private String string() {
        int length = length();
        StringBuilder text = new StringBuilder();
        while (text.length() < length) {
            switch (random.nextInt(12)) {
                case 0: text.append('\u00fc'); break;
                case 1: text.append('\u6f22'); break;
                case 2: text.appendCodePoint(0x1f980); break;
                case 3: text.append((char) random.nextInt(0x20)); break;
                default: text.append((char) ('a' + random.nextInt(26)));
            }
        }
        return text.toString();
    }

    private byte[] bytes() {
        byte[] value = new byte[length()];
        random.nextBytes(value);
        return value;
    }

    /** The content follows from the length, for Kafka's JSON renders nothing but the length. */
    private MemoryRecords records() {
        byte[] value = new byte[length()];
        for (int i = 0; i < value.length; i++) {
            value[i] = (byte) (i * 31 + value.length);
        }
        return MemoryRecords.readableRecords(ByteBuffer.wrap(value));
    }

    private int length() {
        switch (random.nextInt(40)) {
            case 0: return 125 + random.nextInt(5);
            case 1: return random.nextInt(20) == 0 ? 16381 + random.nextInt(5) : 300;
            case 2: case 3: return 0;
            default: return random.nextInt(12);
        }
    }

    private static Object construct(Class<?> type) throws Exception {
        Constructor<?> constructor = type.getDeclaredConstructor();
        constructor.setAccessible(true);
        return constructor.newInstance();
    }

    private static Map<String, Field> fields(Class<?> type) {
        return FIELDS.computeIfAbsent(type, key -> {
            Map<String, Field> fields = new HashMap<>();
            for (Field field : key.getDeclaredFields()) {
                field.setAccessible(true);
                fields.put(plain(field.getName()), field);
            }
            return fields;
        });
    }

    private static String plain(String name) {
        return name.replace("_", "").toLowerCase(Locale.ROOT);
    }
}
