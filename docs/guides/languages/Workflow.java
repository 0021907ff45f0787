// usage: java Workflow.java MOUNTPOINT declare|consume N|produce|write
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

class Workflow {
	static Path guide, control;

	static void consume(String number) throws IOException {
		int sum = Files.readAllLines(guide.resolve("numbers")).stream().mapToInt(Integer::parseInt).sum(); // waits
		String token;
		try {
			token = Files.readString(control.resolve("once/guide/token")); // one of all consumers gets it
		} catch (NoSuchFileException error) {
			token = "-";
		}
		Path handle = control.resolve("ref/guide-" + number);
		Files.createLink(handle, control.resolve("own/guide-list")); // nobody writes it now
		String list = Files.readString(handle);
		Files.delete(handle);
		Files.writeString(guide.resolve("result-" + number), sum + " " + token + " " + list + "\n");
	}

	static void produce() throws IOException {
		Files.writeString(guide.resolve("token"), "token");
		Files.writeString(control.resolve("own/guide-list"), "1 2 3"); // an object without a key
		Files.writeString(guide.resolve("scratch"), "scratch");
		Files.writeString(control.resolve("attributes/lease/guide/scratch"), "500ms\n");
		Files.writeString(guide.resolve("numbers"), IntStream.rangeClosed(1, 10).mapToObj(n -> n + "\n")
			.collect(Collectors.joining())); // wakes the consumers
	}

	static void write() throws IOException {
		Path owner = control.resolve("own/guide-list"), handle = control.resolve("mut/guide");
		Files.createLink(handle, owner); // nobody else reads or writes it now
		boolean busy = false;
		try {
			Files.readString(owner);
		} catch (IOException error) {
			busy = true;
		}
		if (!busy)
			throw new IOException("it was read");
		Files.writeString(handle, "1 2 3 4");
		Files.delete(handle);
		Files.move(owner, guide.resolve("list"));
	}

	public static void main(String[] args) throws IOException {
		guide = Path.of(args[0], "guide");
		control = Path.of(args[0], ".promisefs");
		switch (args[1]) {
		case "declare": Files.createFile(control.resolve("future/guide/numbers")); break;
		case "consume": consume(args[2]); break;
		case "produce": produce(); break;
		case "write": write(); break;
		}
	}
}
