package token

import "hash/crc32"

// step is the number of bytes that [checksumOf] reads at once.
const step = 8

// tables are for the algorithm "slicing-by-8" (Kounavis and Berry, 2005), which has shorter chains of dependent loads than one
// byte at a time. tables[n][b] is the CRC of the byte b followed by n zero bytes.
var tables = func() (t [step][256]uint32) {
	t[0] = *crc32.IEEETable
	for n := 1; n < step; n++ {
		for b, crc := range t[n-1] {
			t[n][b] = t[0][crc&0xff] ^ crc>>8
		}
	}
	return t
}()

// checksumOf is [crc32.ChecksumIEEE]. That function takes bytes and lets them escape, so it would need a copy of the token on the
// heap.
func checksumOf(text string) uint32 {
	crc := ^uint32(0)
	for ; len(text) >= step; text = text[step:] {
		crc ^= uint32(text[0]) | uint32(text[1])<<8 | uint32(text[2])<<16 | uint32(text[3])<<24
		crc = tables[7][crc&0xff] ^ tables[6][crc>>8&0xff] ^ tables[5][crc>>16&0xff] ^ tables[4][crc>>24] ^
			tables[3][text[4]] ^ tables[2][text[5]] ^ tables[1][text[6]] ^ tables[0][text[7]]
	}
	for i := range len(text) {
		crc = tables[0][crc&0xff^uint32(text[i])] ^ crc>>8
	}
	return ^crc
}
