// usage: node workflow.js MOUNTPOINT declare|consume N|produce|write
// The synchronous calls hold up the event loop; fs.promises waits in a thread of libuv's pool (four of them).
const fs = require('fs');

const [mount, role, number] = process.argv.slice(2);
process.chdir(mount);
const control = '.promisefs';
const read = (path) => fs.readFileSync(path, 'utf8');

if (role === 'declare') {
	fs.writeFileSync(`${control}/future/guide/numbers`, '');
} else if (role === 'consume') {
	const sum = read('guide/numbers').trim().split(/\s+/).map(Number).reduce((a, b) => a + b); // waits
	let token = '-';
	try {
		token = read(`${control}/once/guide/token`); // one of all consumers gets it
	} catch (error) {
		if (error.code !== 'ENOENT') throw error;
	}
	const handle = `${control}/ref/guide-${number}`;
	fs.linkSync(`${control}/own/guide-list`, handle); // nobody writes it now
	const list = read(handle);
	fs.unlinkSync(handle);
	fs.writeFileSync(`guide/result-${number}`, `${sum} ${token} ${list}\n`);
} else if (role === 'produce') {
	fs.writeFileSync('guide/token', 'token');
	fs.writeFileSync(`${control}/own/guide-list`, '1 2 3'); // an object without a key
	fs.writeFileSync('guide/scratch', 'scratch');
	fs.writeFileSync(`${control}/attributes/lease/guide/scratch`, '500ms\n');
	fs.writeFileSync('guide/numbers', Array.from({ length: 10 }, (_, n) => `${n + 1}\n`).join('')); // wakes them
} else if (role === 'write') {
	fs.linkSync(`${control}/own/guide-list`, `${control}/mut/guide`); // nobody else reads or writes it now
	let code = 'nothing';
	try {
		read(`${control}/own/guide-list`);
	} catch (error) {
		code = error.code;
	}
	if (code !== 'EBUSY') throw new Error(`expected EBUSY: ${code}`);
	fs.writeFileSync(`${control}/mut/guide`, '1 2 3 4');
	fs.unlinkSync(`${control}/mut/guide`);
	fs.renameSync(`${control}/own/guide-list`, 'guide/list');
}
