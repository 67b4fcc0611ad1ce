package ledger
import ("testing";"os";"fmt";"bytes")
func TestZZ(t *testing.T){
	f,_:=os.OpenFile("testdata/statements.txt",os.O_APPEND|os.O_WRONLY,0)
	n:=0
	raw,_:=os.ReadFile("testdata/statements.txt")
	for l := range bytes.Lines(raw) { if l[0]!='#' {n++} }
	all:=everyKind()
	for i:=n;i<len(all);i++{
		b,err:=all[i].Marshal(); if err!=nil{t.Fatal(err)}
		salt:=Salt(bytes.Repeat([]byte{byte(0x90+i-n)},32))
		e:=EntryOf(salt,b)
		fmt.Fprintf(f,"%x %x %x\n",salt[:],b,e[:])
	}
}
